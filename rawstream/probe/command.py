"""The command: its options, what it prints, and its exit status."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import math
import os
import shutil
import ssl
import sys
from collections.abc import Callable
from pathlib import Path

from .conclusion import conclude
from .hunt import Hunt
from .measure import Asker, Unreachable
from .report import Style, data, printable, text, told
from .svg import svg

FAILED = 2


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `probe`."""
    parser.add_argument("url", metavar="URL", help="http:// or https://; best of all that of rawstream's own /probe")
    parser.add_argument(
        "--time", type=_seconds, default=8.0, metavar="SECONDS", help="how long each request may take (8)"
    )
    parser.add_argument(
        "--idle", type=_seconds, default=0.0, metavar="SECONDS", help="see whether a silence of so long is borne"
    )
    parser.add_argument(
        "--header", action="append", default=[], type=_field, metavar="NAME:VALUE", help="send this with each request"
    )
    parser.add_argument("--data", metavar="TEXT", help="ask by POST, with this body (of application/json)")
    parser.add_argument("--insecure", action="store_true", help="do not check the certificate of an https URL")
    parser.add_argument("--json", action="store_true", help="tell it to a machine")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the arrivals, as SVG")


def _seconds(told: str) -> float:
    try:
        value = float(told)
    except ValueError:
        value = math.nan
    if not 0 < value <= 86_400:
        raise argparse.ArgumentTypeError(f"{told!r} is not a number of seconds above 0, up to 86400")
    return value


def _field(told: str) -> tuple[str, str]:
    name, colon, value = told.partition(":")
    if not colon or not name.strip():
        raise argparse.ArgumentTypeError(f"{told!r} is not a header field, as in 'Authorization: Bearer abc'")
    return name.strip(), value.strip()


def main(options: argparse.Namespace) -> int:
    """Probe a URL and tell what was found: 0 it streams, 1 it is held back, 2 it failed or could not be told."""
    url = options.url if "://" in options.url else f"http://{options.url}"
    headers = list(options.header)
    if options.data is not None and not any(name.lower() == "content-type" for name, _ in headers):
        headers.append(("Content-Type", "application/json"))
    body = (options.data or "").encode("utf-8", "surrogateescape")
    asker = Asker(url, tuple(headers), body, _unchecked() if options.insecure else None)
    hunt = Hunt(asker, options.time, options.idle, options.data is not None, _progress(options.json))
    interrupted = False
    try:
        asyncio.run(hunt.run())
    except KeyboardInterrupt:
        interrupted = True
        hunt.break_off()
    except Unreachable as exc:
        _clear()
        if not hunt.cases:
            if options.json:
                print(json.dumps({"url": url, "verdict": "failed", "line": str(exc), "culprit": None, "exit": FAILED}))
            return _fail(str(exc))
    _clear()
    if not hunt.cases:
        return 130
    return _tell(options, hunt, interrupted)


def _unchecked() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _tell(options: argparse.Namespace, hunt: Hunt, interrupted: bool) -> int:
    url, conclusion = hunt.asker.url, conclude(hunt.cases)
    with contextlib.suppress(BrokenPipeError):
        if options.json:
            print(json.dumps(data(url, hunt.cases, conclusion, hunt.resumed), ensure_ascii=not _is_utf8()))
        elif conclusion.kind == "failed" and len(hunt.cases) == 1 and hunt.cases[0].recording.status // 100 != 2:
            return _fail(conclusion.line)
        else:
            sys.stdout.write(text(url, hunt.cases, conclusion, hunt.resumed, _style()))
        sys.stdout.flush()
    if options.plot is not None:
        try:
            options.plot.write_text(svg(url, conclusion.line, hunt.cases), "utf-8")
        except OSError as exc:
            return _fail(f"{options.plot} cannot be written: {exc.strerror}")
    if interrupted:
        print(f"rawstream probe: {told(conclusion, hunt.cases)}", file=sys.stderr)
        return 130
    return conclusion.exit


def _fail(words: str) -> int:
    with contextlib.suppress(OSError):
        print(f"rawstream probe: {printable(words)}", file=sys.stderr, flush=True)
    return FAILED


def _is_utf8() -> bool:
    return (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"


def _style() -> Style:
    """Colour only for a terminal, and not where NO_COLOR asks for none (no-color.org)."""
    terminal = sys.stdout.isatty()
    colour = terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    width = min(shutil.get_terminal_size((80, 24)).columns, 120) if terminal else 80
    return Style(width, not _is_utf8(), colour)


def _progress(quiet: bool) -> Callable[[str], None]:
    """Tells on a terminal what is being asked, in a line that is written over."""

    def tell(words: str) -> None:
        if not quiet and sys.stderr.isatty():
            print(f"\r\x1b[K{words} ...", end="", file=sys.stderr, flush=True)

    return tell


def _clear() -> None:
    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)
