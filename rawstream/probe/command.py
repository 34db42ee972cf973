"""The command: its options, what it prints, and its exit status."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
from collections.abc import Callable
from pathlib import Path

from rawstream.asking import add_reach, add_request, add_url, request, seconds, trust
from rawstream.terminal import Style, on_one_line

from .conclusion import conclude
from .hunt import Hunt
from .measure import Asker, Unreachable
from .report import data, text, told
from .svg import svg

FAILED, INTERRUPTED = 2, 130


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `probe`. Those that `get` has too have the same names there."""
    add_url(parser, "best of all rawstream's own, as :8000/probe")
    ask = parser.add_argument_group("what to ask for")
    add_request(ask)
    ask.add_argument("--time", type=seconds, default=8.0, metavar="SECONDS", help="for each request (default: 8)")
    ask.add_argument(
        "--idle", type=seconds, default=0.0, metavar="SECONDS", help="see whether a silence of so long is borne"
    )
    show = parser.add_argument_group("how to show it")
    show.add_argument("--json", action="store_true", help="tell it to a machine")
    show.add_argument("--plot", type=Path, metavar="FILE", help="draw the arrivals, as SVG")
    add_reach(parser)


def asker(options: argparse.Namespace) -> Asker:
    """What asks, as the options have it."""
    headers, body = request(options)
    return Asker(options.url, tuple(headers), body or b"", trust(options), options.unix_socket)


def main(options: argparse.Namespace) -> int:
    """Probe a URL and tell what was found: 0 it streams, 1 it is held back, 2 it failed or could not be told."""
    if sys.stdout is None:  # by `>&-`
        return _fail("there is no standard output: it is closed")
    hunt = Hunt(asker(options), options.time, options.idle, bool(options.data), _progress(options.json))
    interrupted, trouble = False, ""
    try:
        asyncio.run(hunt.run())
    except KeyboardInterrupt:
        interrupted = True
        hunt.break_off()
    except Unreachable as exc:
        trouble = str(exc)
    _clear()
    try:
        if hunt.cases:
            return _tell(options, hunt, interrupted)
        return INTERRUPTED if interrupted else _unreachable(options, trouble)
    except OSError as exc:
        return _fail(f"the output cannot be written: {exc.strerror}")


def _unreachable(options: argparse.Namespace, words: str) -> int:
    if options.json:
        _print(json.dumps({"url": options.url, "verdict": "failed", "line": words, "culprit": None, "exit": FAILED}))
    return _fail(words)


def _tell(options: argparse.Namespace, hunt: Hunt, interrupted: bool) -> int:
    conclusion, style = conclude(hunt.cases), Style.of(sys.stdout)
    if options.json:
        found = data(options.url, hunt.cases, conclusion, hunt.resumed)
        _print(json.dumps(found, ensure_ascii=not style.blocks))
    elif conclusion.kind == "failed" and len(hunt.cases) == 1 and hunt.cases[0].recording.status // 100 != 2:
        return _fail(conclusion.line)
    else:
        _print(text(options.url, hunt.cases, conclusion, hunt.resumed, style))
    if options.plot is not None:
        try:
            options.plot.write_text(svg(options.url, conclusion.line, hunt.cases), "utf-8")
        except OSError as exc:
            return _fail(f"{options.plot} cannot be written: {exc.strerror}")
    if interrupted:
        _say(told(conclusion, hunt.cases))
        return INTERRUPTED
    return conclusion.exit


def _print(words: str) -> None:
    """Write to stdout all and now: what is left in its buffer would fail once more when Python ends.

    Raises OSError, but not for a pipe that nobody reads any more.
    """
    out = sys.stdout
    with (
        contextlib.suppress(BrokenPipeError),
        open(out.fileno(), "w", encoding=out.encoding, errors="backslashreplace", closefd=False) as own,
    ):
        own.write(words.removesuffix("\n") + "\n")


def _say(words: str) -> None:
    if sys.stderr is not None:  # as it is by `2>&-`
        with contextlib.suppress(OSError):
            print(f"rawstream probe: {on_one_line(words)}", file=sys.stderr, flush=True)


def _fail(words: str) -> int:
    _say(words)
    return FAILED


def _progress(quiet: bool) -> Callable[[str], None]:
    """Tells on a terminal what is being asked, in a line that is written over."""

    def tell(words: str) -> None:
        if not quiet and _is_watched():
            print(f"\r\x1b[K{words} ...", end="", file=sys.stderr, flush=True)

    return tell


def _clear() -> None:
    if _is_watched():
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def _is_watched() -> bool:
    return sys.stderr is not None and sys.stderr.isatty()
