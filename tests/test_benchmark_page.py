"""The page of a result: what it says, that it stands alone, and that its pictures can be read."""

from __future__ import annotations

import itertools
import math
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

import pytest
from benchmark_results import COLUMN, crowd, dropped, entry, fake, outcome, paced, result
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import page, report
from benchmarks.page import lines, looks, tables, verdict
from benchmarks.page.pictures import Curves, Dots, Growth, Percentiles, Picture
from benchmarks.page.sections import SECTIONS, pictures, section, words
from benchmarks.page.svg import Linear, Log, scale_for, spread_out
from benchmarks.syscalls import Syscalls
from benchmarks.workload import Column

SVG = "{http://www.w3.org/2000/svg}"
VOID = {"meta", "rect", "line", "circle", "path", "br"}


class Reader(HTMLParser):
    """Reads a page: its text, its attributes, and whether every element is closed."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(source)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def svg_of(picture: Picture, narrow: bool = False) -> ET.Element:
    drawing = picture.narrow if narrow else picture.wide
    return ET.fromstring(drawing.svg(picture.title, style="text{}", title=("a title",)))


def words_of(element: ET.Element) -> list[str]:
    return [text.text or "" for text in element.iter(f"{SVG}text")]


def names_in(picture: Picture) -> list[str]:
    """The names of the rows of a drawing, from top to bottom."""
    found = [text for text in svg_of(picture).iter(f"{SVG}text") if text.get("text-anchor") == "end"]
    found = [text for text in found if "value" not in text.get("class", "") and "soft" not in text.get("class", "")]
    return [text.text or "" for text in sorted(found, key=lambda text: float(text.get("y", "0")))]


def rich() -> report.Json:
    """A result with something of everything."""
    many = crowd(20)
    many[3].syscalls = Syscalls("strace", 2.5, {"sendto": 1.0})
    entries = [
        entry("floor", {"cpu_per_chunk_us": [5.0, 5.0, 5.0]}),
        *many,
        entry("aiohttp", {"cpu_per_chunk_us": [9.0, 9.1, 9.2]}, noisy=("others took 9% of a core",)),
        dropped("uvicorn", "missing", "not installed: uvicorn"),
        dropped("hypercorn", "wrong", "2 events instead of 3; its stderr ends in: <boom> & co"),
    ]
    return result(outcome(*entries), outcome(entry("rawstream", {"cpu_per_chunk_us": [1.0]}), workload=fake("new")))


# -- the page ----------------------------------------------------------------------------------------------------------


def test_the_page_stands_alone() -> None:
    """Nothing is loaded from anywhere, and nothing runs."""
    source = page.page(rich())
    found = Reader(source)
    assert found.open == []
    assert {tag for tag, _ in found.tags}.isdisjoint({"script", "link", "img", "iframe", "object"})
    assert not re.search(r"https?://(?!www\.w3\.org)|url\(|@import", source)
    addresses = [values["href"] or "" for _, values in found.tags if "href" in values]
    ids = {values.get("id") for _, values in found.tags}
    assert addresses
    assert {address.removeprefix("#") for address in addresses} <= ids


def test_the_page_tells_what_was_measured_and_who_is_not_there() -> None:
    text = "".join(Reader(page.page(rich())).text)
    assert "200 readers have a stream each, with an event of 26 bytes every 20 ms" in text
    assert "a processor, 2 cores · 2026-11-22 · Python 3.11.7 · 1 to 3 rounds" in text
    assert "uvicorn (httptools, uvloop) + Starlette is missing: not installed: uvicorn" in text
    assert "gave a wrong answer, and is not timed: 2 events instead of 3; its stderr ends in: <boom> & co" in text
    assert "Noisy: 3 of 67 samples" in text
    assert "Fewer than 3 rounds of new: good for a look" in text
    assert "make bench ARGS=" in text


def test_a_quiet_run_says_so_and_an_interrupted_one_too() -> None:
    found = paced(rawstream=[1.0, 1.0, 1.0])
    assert "Quiet: none of the 3 samples" in page.page(found)
    assert "interrupted" not in page.page(found)
    assert "interrupted after 9 s, in paced." in page.page(found | {"interrupted": "after 9 s, in paced."})


def test_a_run_without_any_figure_has_a_page() -> None:
    source = page.page(result(outcome(dropped("aiohttp", "failed", "did not start: no"))))
    assert Reader(source).open == []
    assert "did not start" in source


def test_a_workload_that_nobody_has_described_gets_plain_pictures() -> None:
    found = rich()["workloads"]["new"]
    assert section("new", found).heading == "new: a fake"
    assert [picture.name for picture in pictures("new", found)] == ["new-cpu-per-chunk-us"]


def test_every_workload_is_described_and_every_size_in_it_known() -> None:
    from benchmarks import cli

    settings = paced(rawstream=[1.0])["settings"]
    assert {workload.name for workload in cli.COMMANDS["all"]} == SECTIONS.keys()
    for each in SECTIONS.values():
        assert "…" not in words(each.heading, settings) + words(each.words, settings)
    assert words("{gone:,} of them", settings) == "… of them"


def test_each_picture_is_a_file_that_is_well_formed(tmp_path: Path) -> None:
    written = page.write(rich(), tmp_path)
    names = [path.name for path in written]
    assert names[:2] == ["all.html", "all.md"]
    assert {"targets.svg", "paced-cpu-per-chunk-us.svg", "paced-latency.svg", "paced-syscalls.svg"} <= set(names)
    for path in written:
        if path.suffix == ".svg":
            root = ET.parse(path).getroot()
            assert root.tag == f"{SVG}svg"
            assert root.get("role") == "img"
            assert root.get("aria-label")
            assert "prefers-color-scheme:dark" in (root.findtext(f"{SVG}style") or "")


# -- colours -----------------------------------------------------------------------------------------------------------


def luminance(color: str) -> float:
    parts = (int(color[at : at + 2], 16) / 255 for at in (1, 3, 5))
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    """WCAG's contrast ratio."""
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("dark", [False, True])
def test_text_and_drawings_have_contrast_in_light_and_in_dark(dark: bool) -> None:
    """WCAG 1.4.3 and 1.4.11: 4.5 for text, 3 for what is drawn."""
    plain = {name: pair[dark] for name, pair in looks._PLAIN.items()}
    for ground, name in itertools.product(("ground", "band"), ("text", "soft", "good", "bad")):
        assert contrast(plain[ground], plain[name]) >= 4.5, (ground, name)
    for name, pair in looks._FAMILIES.items():
        assert contrast(plain["ground"], pair[dark]) >= 3, name


def test_paper_is_white_whatever_the_screen_is() -> None:
    style = looks.style_of_page()
    assert style.index("@media print{:root") > style.index("@media (prefers-color-scheme:dark){:root")


def test_rawstream_and_the_floor_look_like_nobody_else() -> None:
    assert "ours" in looks.look("rawstream-uvloop").split()
    assert looks.look("floor-c") == "c-floor dashed"
    assert looks.look("nobody-knows") == "c-other"


# -- pictures ----------------------------------------------------------------------------------------------------------


def test_rows_are_sorted_by_what_is_measured_and_the_floor_is_a_line() -> None:
    found = paced(floor=[5.0], aiohttp=[30.0], rawstream=[20.0], go=[25.0])
    (picture,) = Dots("cpu_per_chunk_us").draw("paced", found["workloads"]["paced"])
    assert names_in(picture) == ["rawstream", "Go's net/http", "aiohttp"]
    root = svg_of(picture)
    assert "floor (bare send loop): 5 µs" in words_of(root)
    assert [each.get("class") for each in root if each.get("class") == "limit"] == ["limit"]
    assert "30 µs" in words_of(root)
    assert "~1.50×" in words_of(root), "one round shows no difference"


def test_of_what_can_be_less_than_nothing_no_ratio_is_told() -> None:
    workload = fake("other", Column("held_per_slow_bytes", "held", ratio=True))
    values = {"rawstream": [2048.0] * 3, "go": [-512.0] * 3, "aiohttp": [1024.0] * 3}
    entries = [entry(peer, {"held_per_slow_bytes": each}) for peer, each in values.items()]
    part = result(outcome(*entries, workload=workload))["workloads"]["other"]
    (picture,) = Dots("held_per_slow_bytes").draw("other", part)
    words = words_of(svg_of(picture))
    assert "-512 B" in words
    assert [each for each in words if "×" in each] == ["0.50×", "1.00×"]


def test_of_a_rate_the_highest_is_on_top() -> None:
    workload = fake("burst", Column("events_per_s", "events/s", ratio=True))
    entries = [entry("aiohttp", {"events_per_s": [5.0]}), entry("rawstream", {"events_per_s": [9.0]})]
    (picture,) = Dots("events_per_s").draw("b", result(outcome(*entries, workload=workload))["workloads"]["burst"])
    assert names_in(picture) == ["rawstream", "aiohttp"]
    assert "Further right is better" in picture.note


def test_figures_far_apart_are_drawn_by_ratios() -> None:
    near, far = paced(rawstream=[1.0], aiohttp=[20.0]), paced(rawstream=[1.0], aiohttp=[2000.0])
    notes = [next(Dots("cpu_per_chunk_us").draw("p", found["workloads"]["paced"])).note for found in (near, far)]
    assert ["ratios" in note for note in notes] == [False, True]


def test_a_difference_that_the_rounds_show_has_no_tilde() -> None:
    found = paced(rawstream=[20.0] * 5, aiohttp=[30.0, 31.0, 30.5, 30.2, 30.1], go=[19.0, 21.0, 20.2, 20.5, 19.5])
    (picture,) = Dots("cpu_per_chunk_us").draw("paced", found["workloads"]["paced"])
    assert {"1.51×", "~1.01×", "1.00×"} <= set(words_of(svg_of(picture)))


@pytest.mark.parametrize("narrow", [False, True])
def test_the_names_of_twenty_lines_do_not_collide(narrow: bool) -> None:
    part = result(outcome(*crowd(20)))["workloads"]["paced"]
    (picture,) = Percentiles("latency", "Latency").draw("paced", part)
    drawing = picture.narrow if narrow else picture.wide
    root = svg_of(picture, narrow)
    groups = [each for each in root if each.get("class", "").startswith("series")]
    places = sorted(float(text.get("y", "0")) for each in groups for text in each.iter(f"{SVG}text"))
    assert len(places) == 20
    assert all(later - earlier >= 12 for earlier, later in itertools.pairwise(places))
    assert places[-1] < drawing.height
    assert "ours" in groups[-1].get("class", ""), "rawstream lies on top"


@pytest.mark.parametrize("narrow", [False, True])
def test_no_row_is_wider_than_its_drawing(narrow: bool) -> None:
    part = result(outcome(*crowd(20)))["workloads"]["paced"]
    for picture in pictures("paced", part):
        drawing = picture.narrow if narrow else picture.wide
        for text in svg_of(picture, narrow).iter(f"{SVG}text"):
            width, at = len(text.text or "") * 5.6, float(text.get("x", "0"))
            left = {"end": at - width, "middle": at - width / 2}.get(text.get("text-anchor", ""), at)
            assert left >= -1, text.text
            assert left + width <= drawing.width + 1, text.text


def test_a_line_of_percentiles_ends_with_its_slowest_event() -> None:
    few = [(0.1, 1.0), (0.5, 2.0), (0.9, 3.0), (0.99, 4.0), (0.999, 4.0), (0.9998, 4.0), (1.0, 4.0)]
    assert [value for _, value in lines.beyond(few)] == [2.0, 3.0, 4.0]
    assert [value for _, value in lines.beyond([(0.5, 2.0), (0.9, 2.0), (0.99, 2.0)])] == [2.0, 2.0]
    assert [at for at, _ in lines.beyond(few)] == pytest.approx([math.log10(2), 1, 2])


def test_every_contender_has_its_system_calls() -> None:
    (picture,) = (each for each in pictures("paced", rich()["workloads"]["paced"]) if each.name == "paced-syscalls")
    assert {"2.5", "sendto"} <= set(words_of(svg_of(picture)))


def test_flushes_are_shown_without_and_with_nagle() -> None:
    def flush(variant: str) -> report.Json:
        values = {"latency_p50_us": [20.0], "cpu_per_event_us": [1.0]}
        timeline = [(0.0, 0), (0.01, 0), (0.5, 2), (0.9, 8)]
        return entry("rawstream", values, variant, timeline=timeline, histogram=[1, 2, 0, 0, 0, 0, 9, 0, 0, 0])

    workload = fake("flush", Column("latency_p50_us", "p50 µs", ratio=True))
    found = pictures("flush", result(outcome(flush(""), flush("Nagle"), workload=workload))["workloads"]["flush"])
    assert [picture.name for picture in found[:4]] == [
        "flush-timeline", "flush-gaps", "flush-timeline-nagle", "flush-gaps-nagle",
    ]  # fmt: skip
    assert names_in(found[0]) == ["rawstream"]
    assert "8" in words_of(svg_of(found[0]))
    assert "75%" in words_of(svg_of(found[1]))
    assert names_in(found[4]) == ["rawstream"], "who has Nagle's algorithm is not compared"


def test_a_burst_is_shown_until_most_are_done() -> None:
    def burst(peer: str, step: float) -> report.Json:
        return entry(peer, {"events_per_s": [1.0]}, timeline=[(n * step, 100) for n in range(1, 11)])

    entries = [burst("rawstream", 1.0), burst("aiohttp", 1.5), burst("go", 100.0)]
    part = result(outcome(*entries, workload=fake("burst", COLUMN)))["workloads"]["burst"]
    (picture,) = Growth("Events", "").draw("burst", part)
    ticks = [word for word in words_of(svg_of(picture)) if word.endswith("ms")]
    assert ticks == ["10 ms", "20 ms", "30 ms", "40 ms"]


def test_memory_is_shown_as_it_grows() -> None:
    timeline = [(0.0, 10 * 2**20), (1000.0, 13 * 2**20)]
    part = result(outcome(entry("rawstream", {"cpu_per_chunk_us": [1.0]}, timeline=timeline)))["workloads"]["paced"]
    (picture,) = Growth("Memory", "", memory=True).draw("slow", part)
    assert {"0 B", "1 MiB", "3 MiB", "1 s"} <= set(words_of(svg_of(picture)))


def test_curves_go_over_the_number_of_connections() -> None:
    def scaled(size: int, workers: int) -> report.Json:
        values = {"cpu_per_chunk_us": [10.0 + size], "connections": [float(size)]}
        return entry("rawstream", values, f"{size:,} connections, {workers} workers")

    entries = [scaled(size, workers) for workers in (1, 2) for size in (1000, 1, 10)]
    part = result(outcome(*entries, workload=fake("scale", COLUMN)))["workloads"]["scale"]
    (picture,) = Curves("cpu_per_chunk_us", "CPU", "").draw("scale", part)
    found = words_of(svg_of(picture))
    assert len(list(svg_of(picture).iterfind(f".//{SVG}line[@class='range']"))) == 6
    assert {"asyncio, 1 workers", "asyncio, 2 workers", "1", "10", "1,000"} <= set(found)
    assert list(Curves("memory_bytes", "Memory", "").draw("scale", part)) == []


# -- scales ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scale", "ticks"),
    [
        (Linear(0, 62, 0, 100), [0, 20, 40, 60]),
        (Linear(0, 5, 0, 100), [0, 1, 2, 3, 4, 5]),
        (Linear(0, 50 * 2**20, 0, 100, 2**20), [n * 10 * 2**20 for n in range(6)]),
        (Log(1, 100_000, 0, 100), [1, 10, 100, 1_000, 10_000, 100_000]),
        (Log(9, 110, 0, 100), [10, 20, 50, 100]),
        (Log(12, 42, 0, 100), [15, 20, 25, 30, 35, 40]),
        (Log(2**10, 2**20, 0, 100, 2**10), [2**10 * n for n in (1, 3, 10, 30, 100, 300, 1000)][:7]),
    ],
)
def test_ticks_are_round_and_few(scale: Linear | Log, ticks: list[float]) -> None:
    assert scale.ticks(7 if len(ticks) > 6 else 6) == pytest.approx(ticks)


def test_what_lies_outside_a_scale_stands_at_its_end() -> None:
    assert [Linear(0, 10, 0, 100)(value) for value in (-5, 5, 20)] == [0, 50, 100]
    assert [Log(1, 100, 0, 100)(value) for value in (0.1, 10, 1000)] == pytest.approx([0, 50, 100])


@given(st.lists(st.floats(0, 1e9), max_size=30), st.booleans())
def test_any_values_have_a_scale(values: list[float], log: bool) -> None:
    scale = scale_for(values, log, 10, 110)
    assert all(10 <= scale(value) <= 110.001 for value in values)
    assert len(scale.ticks()) <= 12


@given(st.lists(st.floats(-50, 450), min_size=1, max_size=25), st.floats(1, 30))
def test_names_make_room_for_each_other(wanted: list[float], gap: float) -> None:
    places = spread_out(wanted, gap, 0, 400)
    apart = min(gap, 400 / max(len(wanted) - 1, 1))
    order = sorted(range(len(wanted)), key=lambda n: wanted[n])
    assert all(-1e-6 <= place <= 400 + 1e-6 for place in places)
    assert all(places[b] - places[a] >= apart - 1e-6 for a, b in itertools.pairwise(order))


def test_names_with_room_stand_where_they_want() -> None:
    assert spread_out([10, 50, 90], 15, 0, 100) == [10, 50, 90]
    assert spread_out([50, 50], 20, 0, 100) == [40, 60]
    assert spread_out([], 20, 0, 100) == []


# -- targets and tables ------------------------------------------------------------------------------------------------


def held(ours: list[float], sure: bool = True) -> report.Json:
    """A run with one target: to need less CPU time than Go, on both loops."""
    found = paced(rawstream=ours, rawstream_uvloop=[30.0, 31.0, 29.0], go=[25.0, 25.0, 25.0])
    target = {"text": "", "workload": "paced", "metric": "cpu_per_chunk_us", "wanted": 1.0, "at_least": False}
    against = {"against": "Go's net/http"}
    found["targets"] = [
        {**target, **against, "ours": "rawstream", "ratio": 0.84, "met": True, "sure": sure},
        {**target, **against, "ours": "rawstream, uvloop", "ratio": 1.2, "met": False, "sure": True},
    ]
    return found


def test_a_target_has_each_way_of_running_rawstream() -> None:
    (goal,) = verdict.goals(held([20.0, 21.0, 22.0]))
    assert (goal.against, goal.wanted, goal.at_least, goal.met) == ("Go's net/http", 1.0, False, False)
    ours, uvloop = goal.held
    assert (ours.met, ours.value, ours.low, ours.high) == (True, 0.84, 0.8, 0.88)
    assert (uvloop.met, uvloop.sure, round(goal.distance(uvloop.value), 2)) == (False, True, 1.2)


def test_a_target_on_which_the_run_has_not_decided_has_a_hollow_dot() -> None:
    """Three rounds that agree are too few to be sure; the result says so, and it is not judged anew."""
    for sure in (True, False):
        (goal,) = verdict.goals(held([20.0, 21.0, 22.0], sure=sure))
        assert goal.held[0].sure is sure
        assert ("unsure" in verdict.draw([goal], False).svg("Targets")) is not sure


def test_the_verdict_comes_first_on_the_page() -> None:
    source = page.page(held([20.0, 21.0, 22.0]))
    assert source.index("targets met</h2>") < source.index('id="overview"') < source.index('id="paced"')
    assert "✗" in source
    assert "0 of 1 targets met" in source
    assert "wanted: at most 1× Go's net/http" in source


def test_the_distance_of_a_rate_is_how_much_is_missing() -> None:
    goal = verdict.Goal("burst", "events_per_s", "", "aiohttp", 2.0, True, ())
    assert [goal.distance(value) for value in (1.0, 2.0, 4.0, 0.0, 1e9)] == [2.0, 1.0, 0.5, 20.0, 0.05]


def test_the_table_for_a_readme_has_the_best_in_bold() -> None:
    found = paced(floor=[5.0], aiohttp=[30.0], rawstream=[20.0])
    lines = tables.markdown(found).splitlines()
    assert lines[0] == "| | `paced` CPU per chunk | `paced` p50 |"
    assert lines[2:5] == [
        "| floor (bare send loop) | 5 µs | 50 µs |",
        "| **rawstream** | **20 µs** | **50 µs** |",
        "| aiohttp | 30 µs | **50 µs** |",
    ]
    assert lines[5:] == [
        "",
        "Medians of 1 round; a processor, CPython 3.11.7, 2026-11-22.",
        "",
        "Of `paced`, p50 is from `yield` to `read`, and late p99 from the time at which an event was due.",
    ]


def test_the_overview_marks_who_fell_behind_and_names_who_is_not_in_it() -> None:
    slow = entry("fastapi", {"cpu_per_chunk_us": [10.0], "delivered": [0.75]})
    ours = entry("rawstream", {"cpu_per_chunk_us": [20.0], "delivered": [0.999]})
    gone = dropped("node", "missing", "not installed: node")
    found = result(
        outcome(slow, ours, gone, dropped("nchan", "cannot", "makes no stream")),
        outcome(entry("go", {"events_per_s": [5.0]}), gone, workload=fake("burst", Column("events_per_s", "events/s"))),
    )
    text = tables.markdown(found)
    assert "| **rawstream** | **20 µs** | **50 µs** | – |" in text
    assert "| uvicorn (httptools, uvloop) + FastAPI's SSE | 10 µs † | 50 µs † | – |" in text, "not the best"
    assert "\n† did not deliver all that was due: uvicorn (httptools, uvloop) + FastAPI's SSE 75% (`paced`).\n" in text
    assert text.endswith("\nNot measured: Node's http (missing: not installed: node) in `paced`, `burst`.\n")
    shown = "".join(Reader(page.page(found)).text)
    assert "† did not deliver all that was due" in shown
    assert "Not measured: Node's http" in shown


def test_the_overview_has_the_latency_that_no_server_can_hide() -> None:
    found = result(outcome(entry("rawstream", {"latency_p99_us": [100.0], "intended_p99_us": [300_000.0]})))
    assert tables.markdown(found).splitlines()[0] == "| | `paced` p50 | `paced` late p99 |"
    assert "| **rawstream** | **50 µs** | **300 ms** |" in tables.markdown(found)


def test_a_ratio_on_which_the_rounds_disagree_is_marked_in_the_tables_too() -> None:
    found = paced(rawstream=[20.0, 20.0, 20.0], aiohttp=[21.0, 19.0, 22.0], go=[10.0, 10.0, 10.0])
    (part,) = found["workloads"].values()
    for text in (tables.of_workload(part, found), report.tables(found)):
        assert "~1.05×" in text
        assert "0.50×" in text
        assert "~0.50×" not in text


def test_who_has_no_figure_has_a_dash() -> None:
    workload = fake("first", Column("requests_per_s", "requests/s"))
    found = result(
        outcome(entry("rawstream", {"cpu_per_chunk_us": [1.0]})),
        outcome(entry("go", {"requests_per_s": [2_000_000.0]}), workload=workload),
    )
    assert "| Go's net/http | – | – | **2 M/s** |" in tables.markdown(found).splitlines()


def test_the_table_says_which_samples_were_noisy_and_why() -> None:
    source = page.page(rich())
    assert 'title="others took 9% of a core">3/3</td>' in source
