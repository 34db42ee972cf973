"""One HTML page of a result: self-contained, with its pictures inline, in light and dark, on a phone and on paper.

It is made from the JSON alone, so a kept result can be shown again. `looks` has the colours, `svg` draws, `rows` and
`lines` are the kinds of drawings, `pictures` makes them of figures, `sections` says which workload has which,
`verdict` holds the targets, `tables` has every figure, and `markdown` the table for a README.
"""

from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

from benchmarks import metrics
from benchmarks.page import looks, tables, verdict
from benchmarks.page.pictures import Picture
from benchmarks.page.sections import pictures, section, words
from benchmarks.page.svg import Drawing, tag
from benchmarks.page.tables import markdown
from benchmarks.report import few_rounds, noise, notes, rounds_in_words

Json = dict[str, Any]


_READING = tag(
    "section",
    "<h2>How to read the pictures</h2><p>A dot is the median of the rounds, a thick line their quartiles, a thin one "
    "their range. Behind it stand the value and how many times rawstream's (on asyncio's loop) it is; "
    "<b>~</b> says that the rounds do not agree which of the two is more. The dashed line is the floor: a bare loop "
    "that makes one <code>send</code> for each event, and does nothing else. Who gathers events makes fewer, and can "
    "be below it. All servers took turns on the same core, in the same run.</p>",
    id="reading",
)


def page(result: Json) -> str:
    """The whole page."""
    parts = [*_head(result), *_verdict(result), *_overview(result), _READING]
    for name, part in result["workloads"].items():
        parts += _section(name, part, result)
    parts += _run(result)
    body = tag("main", "\n".join(parts))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<title>rawstream: benchmarks</title>\n'
        f"<style>\n{looks.style_of_page()}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def drawings(result: Json) -> dict[str, str]:
    """Each picture as an SVG file of its own, by its name."""
    style = looks.style_of_file()
    found = {}
    if goals := verdict.goals(result):
        found["targets"] = verdict.draw(goals, False).svg("Targets", style=style, title=("Targets",))
    for name, part in result["workloads"].items():
        for picture in pictures(name, part):
            first, rest = picture.title[0], picture.title[1:]
            title = f"{name}: {first if rest[:1].isupper() else first.lower()}{rest}"  # "CPU" stays
            found[picture.name] = picture.wide.svg(title, style=style, title=(title, picture.note))
    return found


def write(result: Json, directory: Path) -> list[Path]:
    """Write the page, the README's table and each picture; gives the files, the page first."""
    texts = {f"{result['command']}.html": page(result), f"{result['command']}.md": markdown(result)}
    texts |= {f"{name}.svg": drawing for name, drawing in drawings(result).items()}
    written = []
    for name, content in texts.items():
        path = directory / name
        path.write_text(content, encoding="utf-8")
        written.append(path)
    return written


def _head(result: Json) -> Iterator[str]:
    machine = result["machine"]
    yield "<header><h1>How fast chunks travel: rawstream beside its peers</h1>"
    about = (
        f"{machine['processor']}, {machine['cores']} cores · {result.get('began', '')[:10]} · Python "
        f"{result['versions'].get('python', '?')} · {rounds_in_words(result)}"
    )
    yield tag("p", escape(about), class_="about")
    if result.get("interrupted"):
        yield _warning(f"This run was interrupted {result['interrupted']} What is here was measured before.")
    if few := few_rounds(result):
        yield _warning(few)
    noisy, total = noise(result)
    if noisy:
        yield _warning(
            f"Noisy: {noisy} of {total} samples were disturbed by something else on the machine. "
            "Trust ratios more than figures, and small differences not at all."
        )
    elif total:
        yield tag(
            "p", f"Quiet: none of the {total} samples was disturbed by anything else on the machine.", class_="fine"
        )
    links = [tag("a", escape(name), href=f"#{name}") for name in result["workloads"]]
    yield tag("nav", " ".join([*links, '<a href="#run">the run</a>']), aria_label="Workloads")
    yield "</header>"


def _warning(words: str) -> str:
    return tag("p", escape(words), class_="warning")


def _verdict(result: Json) -> Iterator[str]:
    goals = verdict.goals(result)
    if not goals:
        return
    met = sum(goal.met for goal in goals)
    yield '<section id="verdict">'
    yield tag("h2", f"{met} of {len(goals)} targets met")
    yield tag(
        "p",
        "The project's own targets, held against this run. The line is the target: a dot left of it meets it, and its "
        "distance is by ratios (2: missed by a factor of two; 0.5: met twice over). The thin line is the interval in "
        "which the rounds of the run put it; where that crosses the target, or has too few rounds to be trusted, the "
        "run has not decided, and the dot is hollow. Each target has a dot for asyncio's loop and, below it, one for "
        "uvloop.",
    )
    figure = _figure("", "", verdict.draw(goals, False), verdict.draw(goals, True), "Targets")
    yield tag("div", figure + tables.of_goals(goals), class_="figures")
    yield "</section>"


def _overview(result: Json) -> Iterator[str]:
    found = tables.overview(result)
    if found:
        yield '<section id="overview"><h2>At a glance</h2>'
        yield tag(
            "p",
            "Medians, the best server of each column in bold. The floor is no server: it is one <code>send</code> for "
            "each event.",
        )
        yield found + "".join(tag("p", _code(line), class_="fine") for line in tables.legend(result)) + "</section>"


def _section(name: str, part: Json, result: Json) -> Iterator[str]:
    about, settings = section(name, part), result["settings"]
    yield f'<section id="{escape(name)}">'
    yield tag("h2", f"{escape(words(about.heading, settings))} <code>{escape(name)}</code>")
    yield tag("p", _code(words(about.words, settings)))
    yield tag("div", "".join(map(_picture, pictures(name, part))), class_="figures")
    yield tables.of_workload(part, result)
    yield "</section>"


def _picture(picture: Picture) -> str:
    return _figure(picture.title, picture.note, picture.wide, picture.narrow, picture.title)


def _figure(title: str, note: str, wide: Drawing, narrow: Drawing, label: str) -> str:
    caption = tag("b", escape(title)) + " " + tag("span", escape(note)) if title else ""
    return tag(
        "figure",
        (tag("figcaption", caption) if caption else "") + wide.svg(label, "wide") + narrow.svg(label, "narrow"),
    )


def _code(text: str) -> str:
    """Words between backticks as code."""
    pieces = escape(text, quote=False).split("`")
    return "".join(tag("code", piece) if n % 2 else piece for n, piece in enumerate(pieces))


def _run(result: Json) -> Iterator[str]:
    machine = result["machine"]
    yield '<section id="run"><h2>The run</h2><ul>'
    for note in notes(result)[1:]:  # the versions are a table here
        yield tag("li", escape(note))
    yield "</ul>"
    facts = {key: value for key, value in machine.items() if key != "load_average"}
    if load := machine.get("load_average"):
        facts["load average at the start"] = ", ".join(f"{value:.2f}" for value in load)
    if "seconds" in result:
        facts["it took"] = metrics.duration(result["seconds"] * 1e6) if result["seconds"] < 90 else _minutes(result)
    facts["cores"] = f"{machine['cores']} (server on {result['settings']['server_core']}, "
    facts["cores"] += f"load on {result['settings']['load_core']})"
    known = {key: value or "not installed" for key, value in result["versions"].items()}
    yield tag("div", tables.of_facts("Machine", facts) + tables.of_facts("Versions", known), class_="facts")
    yield "<h3>How to run it yourself</h3><pre>" + escape(_how(result)) + "</pre></section>"


def _minutes(result: Json) -> str:
    return f"{result['seconds'] / 60:.0f} minutes"


def _how(result: Json) -> str:
    return (
        "git clone … && cd rawstream\n"
        f'make bench ARGS="{result["command"]}"            # measures, and writes this page\n'
        "python -m benchmarks all --from all.json    # makes the page again from what was kept\n"
        "python -m benchmarks compare before.json after.json"
    )
