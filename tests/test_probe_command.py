"""`python -m rawstream probe`: what it prints, draws and returns."""

from __future__ import annotations

import argparse
import json
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from processes import running

from rawstream.fields import Headers
from rawstream.probe import add_options, main
from rawstream.probe.arrivals import Mark, Piece, Recording
from rawstream.probe.command import asker
from rawstream.probe.conclusion import conclude
from rawstream.probe.findings import Case, Finding
from rawstream.probe.hunt import found
from rawstream.probe.picture import picture
from rawstream.probe.report import data, text
from rawstream.probe.svg import svg
from rawstream.probe.ways import Way
from rawstream.terminal import Style


# One server and one test for what takes seconds each.
def test_the_demo_streams_and_is_told_so_to_people_and_to_machines(tmp_path: Path) -> None:
    plot = tmp_path / "plot.svg"
    with running("--port", "0") as server:
        url = f"http://127.0.0.1:{server.port}"
        started = [
            subprocess.Popen(
                [sys.executable, "-m", "rawstream", "probe", *arguments],
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8", env={"PYTHONUTF8": "1"},
            )
            for arguments in (
                [f"{url}/probe", "--plot", str(plot)],
                [f"{url}/probe?count=6", "--json"],
                [f"{url}/clock"],
                [f"{url}/nowhere"],
                [f"{url}/healthz"],
                [f"{url}/healthz", "--plot", str(tmp_path / "nowhere" / "plot.svg")],
            )
        ]  # fmt: skip
        people, machines, clock, nowhere, document, undrawn = started
        assert clock.stderr is not None
        told, troubles = people.communicate(timeout=50)
        assert (people.returncode, troubles) == (0, "")
        assert told.splitlines()[-1] == "Verdict  streams"
        assert max(map(len, told.splitlines())) <= 80
        assert "\x1b" not in told
        assert "works: after id 9 came 10" in told
        ElementTree.fromstring(plot.read_text("utf-8"))
        given = json.loads(machines.communicate(timeout=50)[0])
        assert (machines.returncode, given["verdict"], given["exit"], given["inferred"]) == (0, "streams", 0, False)
        assert given["culprit"] is None
        assert [way["name"] for way in given["ways"]][:2] == ["events", "text"]
        assert len(given["ways"][0]["sent"]) == 6
        assert nowhere.communicate(timeout=50) == ("", "rawstream probe: answered 404 Not Found\n")
        assert nowhere.returncode == 2
        assert document.communicate(timeout=50)[0].endswith("Verdict  is no stream: 3 B of text/plain\n")
        assert document.returncode == 2
        words = f"rawstream probe: {tmp_path}/nowhere/plot.svg cannot be written: No such file or directory\n"
        assert undrawn.communicate(timeout=50)[1] == words
        assert undrawn.returncode == 2
        # By now two events of the clock have come, or it has not even begun.
        clock.send_signal(signal.SIGINT)
        clock.communicate(timeout=50)
        assert clock.returncode in (0, 130)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://127.0.0.1:1/", "rawstream probe: no connection to 127.0.0.1 port 1"),
        ("http://[::1/", "rawstream probe: "),
    ],
)
def test_what_cannot_be_asked_is_told_in_one_line(url: str, words: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(options(url)) == 2
    told = capfd.readouterr()
    assert told.out == ""
    assert told.err.startswith(words)
    assert told.err.count("\n") == 1


def test_machines_are_told_it_too(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(options("http://127.0.0.1:1/", "--json")) == 2
    assert json.loads(capfd.readouterr().out)["verdict"] == "failed"


def test_a_disk_that_is_full_is_told_in_one_line() -> None:
    """And not once more, as a traceback, when Python flushes what is left."""
    command = [sys.executable, "-m", "rawstream", "probe", "--json", "http://127.0.0.1:1/"]
    with Path("/dev/full").open("wb") as full:
        ended = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, timeout=50, check=False)
    words = b"rawstream probe: the output cannot be written: No space left on device\n"
    assert (ended.returncode, ended.stderr) == (2, words)


def test_it_asks_as_the_options_say() -> None:
    own = asker(options("-H", "A: b", "-d", "a=1", "--unix-socket", "/run/x", ":80"))
    assert (own.url, own.data, own.uds, own.context) == ("http://localhost:80", b"a=1", "/run/x", None)
    assert own.headers == (("A", "b"), ("Content-Type", "application/x-www-form-urlencoded"))


def options(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_options(parser)
    return parser.parse_args(arguments)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--time", "0"], "a time is a number of seconds above 0, not '0'"),
        (["--idle", "soon"], "a time is a number of seconds above 0, not 'soon'"),
        (["--header", "Authorization"], "a header is \"Name: value\", not 'Authorization'"),
    ],
)
def test_wrong_options_say_what_is_right(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        options("http://x/", *arguments)
    assert words in capsys.readouterr().err


# -- text, picture, SVG: from made-up answers --------------------------------------------------------------------------


def case(name: str, arrivals: list[float], finding: Finding | None = None, server: str = "") -> Case:
    marks = tuple(Mark(place + 1, len(arrivals), 0.1 * place, at, 100) for place, at in enumerate(arrivals))
    headers = Headers([("Content-Type", "text/event-stream"), *([("Server", server)] * bool(server))])
    pieces = tuple(Piece(at, 100, 100, 1) for at in arrivals)
    recording = Recording(200, headers, head_at=0.0, pieces=pieces, marks=marks, ended_at=arrivals[-1])
    return Case(Way(name), recording, finding or found(recording))


STREAMS = case("events", [0.1 * place for place in range(11)])
HELD = case("events (gzip)", [1.0] * 11, server='nginx/1.22\x1b[2J <&">')
CASES = [STREAMS, HELD]


def report(style: Style) -> str:
    return text("http://here/\x07", CASES, conclude(CASES), "", style)


def test_the_picture_shows_what_was_under_way() -> None:
    _, streams, held = picture(CASES)
    assert streams.count("█") == 11
    assert "·" not in streams
    assert re.fullmatch(r"events \(gzip\) +·{39}█ held back", held), held
    assert len(held) <= 80


def test_the_picture_can_do_without_blocks_and_dots() -> None:
    lines = picture(CASES, ascii=True)
    assert all(line.isascii() for line in lines)
    assert re.fullmatch(r"events \(gzip\) +-{39}# held back", lines[2])


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_the_picture_keeps_its_width(width: int) -> None:
    long = case("a name that is much too long for its column", [0.0, 5.0])
    assert max(map(len, picture([*CASES, long], width))) <= max(width, 60)


def test_what_failed_is_not_drawn() -> None:
    failed = Case(Way("POST"), Recording(ending="failed", ended_at=100.0), Finding("failed", "no answer"))
    assert picture([failed]) == []
    assert picture([*CASES, failed])[3] == f"{'POST':24} {'':40} failed"
    assert "POST: no answer" in text("u", [*CASES, failed], conclude([*CASES, failed]), "", Style())


def test_nobody_elses_words_reach_the_terminal_as_commands() -> None:
    told = report(Style())
    assert "\x1b" not in told
    assert "\x07" not in told
    assert "on the way  nginx (Server: nginx/1.22\\x1b[2J" in told


def test_colour_is_for_the_verdict_and_only_if_wanted() -> None:
    assert "\x1b[1;31mVerdict" in report(Style(colours=True))
    assert "\x1b" not in report(Style(colours=False))


def test_the_verdict_stands_last_with_culprit_and_line() -> None:
    told = report(Style())
    assert "\nVerdict  held until the end for events (gzip), not for events\n" in told
    assert re.search(r"\nCulprit  nginx\n", told)
    assert told.rstrip().splitlines()[-2].startswith("Mend     proxy_buffering off;")


def test_json_has_the_same() -> None:
    given: dict[str, Any] = json.loads(json.dumps(data("u", CASES, conclude(CASES), "")))
    assert (given["verdict"], given["culprit"], given["exit"]) == ("held", "nginx", 1)
    assert given["mend"][0] == "proxy_buffering off;"
    assert given["ways"][1]["sent"][0] == [0.0, 1.0]


def test_what_is_inferred_is_said_to_be() -> None:
    plain = Case(Way("events"), STREAMS.recording, Finding("streams", "streams", inferred=True))
    assert "Verdict  streams (inferred)" in text("u", [plain], conclude([plain]), "", Style())


def test_the_svg_is_xml_with_a_stroke_for_each_chunk_and_knows_the_dark() -> None:
    drawn = svg("http://here/?a=1&b=<2>", 'held "back" \x00', CASES)
    root = ElementTree.fromstring(drawn)
    name = "{http://www.w3.org/2000/svg}"
    assert len([line for line in root.iter(f"{name}line") if line.get("class") == "join"]) == 22
    assert len([*root.iter(f"{name}circle")]) == 22
    assert "prefers-color-scheme: dark" in drawn
    assert [group.get("class") for group in root.iter(f"{name}g")] == ["good", "bad"]
    assert root.get("aria-label") == 'held "back" \ufffd'


@pytest.mark.parametrize("span", [0.003, 0.4, 1.6, 8.0, 75.0, 4000.0])
def test_the_axis_has_few_round_numbers(span: float) -> None:
    root = ElementTree.fromstring(svg("", "", [case("x", [0.0, span])]))
    axis = [line for line in root.iter("{http://www.w3.org/2000/svg}line") if line.get("class") == "axis"]
    assert 2 <= len(axis) <= 9
