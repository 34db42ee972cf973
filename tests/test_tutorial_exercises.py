"""The tutorial's exercises have the answers that its pages give: each change is made, and the program is run."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from processes import read_rest, read_until, running

TUTORIAL = Path(__file__).parent.parent / "docs" / "tutorial"
PATIENCE = 60.0
CRLF = r"\r\n"
HEAD = rf"HTTP/1.1{CRLF}Host: localhost{CRLF}{CRLF}"

pytestmark = pytest.mark.either_loop


@dataclass(frozen=True)
class Exercise:
    """number: step and exercise. changes: what to replace by what, each of which is in the program once.

    answer: words of the page's answer. shown: what is then in the output, in this order. failing: whether an exception
    ends it. hurry: changes that no exercise asks for, and that only save time.
    """

    number: str
    changes: dict[str, str]
    answer: str
    shown: list[str]
    failing: bool = False
    hurry: dict[str, str] | None = None

    def __str__(self) -> str:
        return self.number


WORD = '{"data": "Hello"},'
MANY = 'for word in [*["word "] * 1000, "?"]:'
SOONER = {"asyncio.sleep(0.1)": "asyncio.sleep(0.05)"}
FEWER = {"READERS, EVENTS = 10_000": "READERS, EVENTS = 1_000"}
FOURTH = """print(Reader(0).read().count(b"id: "))
for reader in (quick, slow, late):"""
ENCODED = """    for queue in queues:
        queue.append(encode(number, "x" * 50))
"""
ENCODED_ONCE = """    event = encode(number, "x" * 50)
    for queue in queues:
        queue.append(event)
"""
CLOSING = '        await server.close()\n        log.append("four")\n'
CLOSING_AFTER = '        log.append("four")\n        await server.close()\n'

EXERCISES = [
    Exercise("01.1", {'"It is 5 °C.\\n".encode()': 'b"It is cold.\\n"'}, "*(12)*", ["Content-Length: 12"]),
    Exercise(
        "01.2",
        {"% len(BODY) + BODY": "% (len(BODY) + 1) + BODY"},
        "`TimeoutError`",
        ["body += client.recv(length - len(body))", "TimeoutError"],
        failing=True,
        hurry={"settimeout(5)": "settimeout(0.5)"},
    ),
    Exercise(
        "01.3",
        {"% len(BODY) + BODY": "% (len(BODY) - 1) + BODY"},
        "`'It is 5 °C.'`",
        ["11 characters: 'It is 5 °C.'\n"],
    ),
    Exercise(
        "02.2",
        {'"Hello, ", "世界"': '"Hello, ", "", "世界"'},
        f"`0{CRLF}{CRLF}`",
        [f"server sends b'0{CRLF}{CRLF}'", "IndexError"],
        failing=True,
    ),
    Exercise(
        "02.3",
        {f'b"6{CRLF}ab"': r'b"6\r"', rf'b"cdef{CRLF}"': rf'b"\nabcdef{CRLF}"'},
        r"First `[]` and `b'6\r'` kept; then `[b'abcdef']`",
        [r"[] is whole, b'6\r' is kept; ended: False", "[b'abcdef'] is whole, b'' is kept; ended: True"],
    ),
    Exercise(
        "03.1",
        {"    delay_acknowledgements(client)\n": ""},
        "looks like the third",
        ["algorithm on\n", "item 2  the client reads b'two '", "item 3  the client reads b'three'", "algorithm off"],
    ),
    Exercise(
        "03.2",
        {'b"one ", b"two ", b"three"': 'b"one two three", b"", b""'},
        "at once and together",
        ["algorithm on\n  after item 1  the client reads b'one two three'\n", "later         -\n"],
    ),
    Exercise(
        "03.3",
        {"buffering=4096": "buffering=6"},
        "Each item is late by one",
        [
            "at the end\n  after item 1  -\n",
            "2  the client reads b'one '\n",
            "3  the client reads b'two '\n",
            "b'three'",
        ],
    ),
    Exercise(
        "04.1",
        {'yield "until", began + n * seconds': "time.sleep(seconds)"},
        "All of `/a`, then all of `/b`; 0.56 s.",
        ["/a is due", "item 3 of 3", "/b is due", "item 2 of 2", "It took ~0."],
    ),
    Exercise("04.2", {'"/b": (2, 0.13)': '"/b": (2, 0.13), "/c": (1, 0.05)'}, "`/c is due`", ["clients:\n  /c is due"]),
    Exercise(
        "04.3",
        {rf'f"GET {{path}} HTTP/1.1{CRLF}Host: localhost{CRLF}{CRLF}".encode()': 'b"GET /"'},
        "`KeyError: '/'`",
        ["KeyError: '/'"],
        failing=True,
    ),
    Exercise(
        "05.1",
        {"headers=[]), h11.Data(ITEMS[0])": 'headers=[("Content-Length", "4")]), h11.Data(ITEMS[0])'},
        r"`b'one\n'` without a size",
        ["Data          -> b'one\\n'\n", "EndOfMessage  -> b''\n"],
    ),
    Exercise("05.2", {"h11.Data(ITEMS[0])": 'h11.Data(b"")'}, "`b''`. It knows", ["Data          -> b''\n"]),
    Exercise(
        "05.3",
        {f'b"GET / {HEAD}" * 2': f'b"HEAD / {HEAD}"'},
        "`LocalProtocolError`",
        [rf"-> b'HTTP/1.1 200 {CRLF}Transfer-Encoding: chunked{CRLF}{CRLF}'" + "\n", "LocalProtocolError"],
    ),
    Exercise(
        "06.1",
        {WORD: r'{"data": "a\n\nb"},'},
        r"`'a\n\nb'`",
        [r"b'data: a\n'", r"b'data: \n'", r"b'data: b\n'", r"{'data': 'a\n\nb', 'last id': ''}"],
    ),
    Exercise(
        "06.2", {"Decoder().feed(body)": "Decoder().feed(body[:-1])"}, "third event", ["'last id': '7'}\nThe same"]
    ),
    Exercise(
        "07.1", {"        yield word\n": "        yield word\n        await asyncio.sleep(0)\n"}, "4, 1 and 4", []
    ),
    Exercise("07.2", {'for word in ("Are ", "you ", "there?"):': MANY}, "Two still", []),
    Exercise(
        "07.3",
        {"        call()\n        yield waits_for": "        yield waits_for\n        call()\n       "},
        "`Are you there?`",
        ["flush_before_wait\n", rf"'e{CRLF}Are you there?{CRLF}'" + "\n", rf"'10{CRLF} Nobody answers.{CRLF}'" + "\n"],
    ),
    Exercise(
        "08.1",
        {"ALL = 2_000": "ALL = 4_000"},
        "some 20 MB more",
        ["made: ~40.0 MB; kept in this process: ~3"],
        hurry=SOONER,
    ),
    Exercise(
        "08.2",
        {"if self.wait:": "if self.wait and number % 10 == 9:"},
        "the mark and ten items",
        ["write() and drain()\n", "the writer waits\n", "kept in this process: ~0.", "it has read all: True\n"],
        hurry=SOONER,
    ),
    Exercise(
        "08.3", {"read(client, 8_000_000)": "read(client, 0)"}, "`False`", ["more was made meanwhile: False\n"] * 3
    ),
    Exercise(
        "09.1",
        {"for reader in (quick, slow, late):": FOURTH},
        "*(1000, ",
        ["as quick: True\n1000\n"],
        hurry=FEWER,
    ),
    Exercise("09.2", {"EVENTS = 10_000, 20": "EVENTS = 1_000, 40"}, "some 55 MB", ["with a queue each: ~5.", "40000"]),
    Exercise(
        "09.3", {ENCODED: ENCODED_ONCE}, "Some 8 MB", ["with a queue each: ~0.8 MB, made into bytes 20"], hurry=FEWER
    ),
    Exercise(
        "10.1",
        {CLOSING: CLOSING_AFTER},
        "The reader asks with 4.",
        ["The server closes", r"data: four\nid: 4", "asks, Last-Event-ID: 4", "seen: [1, 2, 3, 4, 5]"],
    ),
]


def program(number: str) -> Path:
    (path,) = TUTORIAL.glob(f"{number[:2]}_*.py")
    return path


def tried(exercise: Exercise, directory: Path) -> str:
    """What the program prints once it is changed."""
    text = program(exercise.number).read_text(encoding="utf-8")
    for old, new in {**exercise.changes, **(exercise.hurry or {})}.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    (directory / "changed.py").write_text(text, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "changed.py"],
        cwd=directory,
        env={**os.environ, "PYTHONUTF8": "1"},
        capture_output=True,
        encoding="utf-8",
        timeout=PATIENCE,
        check=False,
    )
    assert bool(done.returncode) == exercise.failing, done.stderr
    return done.stdout + done.stderr


def asked(number: str) -> str:
    """The text of an exercise, with its answer."""
    page = program(number).with_suffix(".md")
    found = re.split(r"^\d\. ", page.read_text(encoding="utf-8").split("## Try this")[1], flags=re.MULTILINE)
    return " ".join(found[int(number[3:])].split())


@pytest.mark.parametrize("exercise", EXERCISES, ids=str)
def test_the_answer_is_what_the_changed_program_prints(exercise: Exercise, tmp_path: Path) -> None:
    assert exercise.answer in asked(exercise.number)
    output = tried(exercise, tmp_path)
    rest = output
    for shown in exercise.shown:
        _, found, rest = rest.partition(shown)
        assert found, (shown, output)
    if exercise.number.startswith("07."):
        counts = [part.count("  written: ") for part in output.split("flush_")[1:]]
        assert counts == {"07.1": [4, 1, 4], "07.2": [1002, 1, 2], "07.3": [4, 1, 2]}[exercise.number]


def test_a_chunk_of_255_bytes_begins_with_the_answer_of_02_1() -> None:
    names: dict[str, object] = {}
    (chunk,) = re.findall(r"^def chunk.*\n.*\n", program("02").read_text(), re.MULTILINE)
    exec(chunk, names)
    first = names["chunk"](bytes(255)).partition(b"\r\n")[0].decode()  # type: ignore[operator]
    assert asked("02.1").endswith(f"*(`{first}`)*")


def test_a_reader_that_forgets_asks_for_ever_as_10_2_says(tmp_path: Path) -> None:
    text = program("10").read_text(encoding="utf-8")
    assert text.count("(last := int(event.partition") == 1
    (tmp_path / "changed.py").write_text(text.replace("(last := int(event.partition", "(int(event.partition"))
    command = [sys.executable, "-u", "changed.py"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, encoding="utf-8") as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(60)]
        process.kill()
    text = "".join(lines)
    assert text.count("asks, Last-Event-ID: 0") == text.count("asks, ") > 3
    assert text.count("data: one") > 3
    assert "asks for ever" in asked("10.2")


def test_who_has_seen_the_end_is_answered_204_as_10_3_says(tmp_path: Path) -> None:
    found = re.search(r"`(curl [^`]+)`", asked("10.3"))
    assert found is not None
    with running("--port", "0") as server:
        command = found[1].replace(":8000", f":{server.port}")
        answer = subprocess.run(
            command, shell=True, capture_output=True, text=True, timeout=PATIENCE, check=True
        ).stdout
        server.signal(signal.SIGTERM)
        server.end()
    assert answer.startswith("HTTP/1.1 204 No Content\n")
    assert "`HTTP/1.1 204 No Content`" in asked("10.3")


def test_a_stream_that_is_closed_ends_as_10_4_says() -> None:
    with running("--port", "0") as server, server.connect() as client:
        client.sendall(b"GET /clock HTTP/1.1\r\nHost: localhost\r\nLast-Event-ID: 7\r\n\r\n")
        assert b"id: 8\n" in read_until(client, b"\n\n\r\n")
        server.signal(signal.SIGINT)
        rest = read_rest(client)
        assert re.search(rb"event: stream-closing\ndata: \{\}\nretry: \d+\n\n\r\n0\r\n\r\n$", rest), rest
        server.end()
    assert r"`stream-closing`, whose `retry` says when to come back, and then the last chunk, `0\r\n\r\n`" in asked(
        "10.4"
    )
