"""The options that `get` and `probe` have in common: what is asked for, and how to get there.

What reads an option (`url`, `header`, `seconds`, ...) is a `type` for argparse: it raises ArgumentTypeError, which says
what was wrong and what would be right.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import ssl
import sys
from argparse import ArgumentTypeError
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

# -- the options -------------------------------------------------------------------------------------------------------


def add_url(parser: argparse.ArgumentParser, more: str) -> None:
    """The URL; `more` is a word about it."""
    parser.add_argument("url", type=url, metavar="URL", help=f"http:// if it has no scheme; {more}")


def add_request(group: Any) -> None:
    """What is sent: fields and a body."""
    group.add_argument(
        "-H", "--header", type=header, action="append", default=[], metavar="NAME:VALUE", help="may be repeated"
    )
    group.add_argument(
        "-d", "--data", type=_data, action="append", default=[], metavar="DATA",
        help="a body, which makes it a POST; @FILE, and @- for stdin",
    )  # fmt: skip


def add_reach(parser: argparse.ArgumentParser) -> Any:
    """How to get there; returns the group, for more of the kind."""
    group = parser.add_argument_group("how to get there")
    group.add_argument("--unix-socket", metavar="PATH", help="connect to this, and not to the URL's host")
    trust = group.add_mutually_exclusive_group()
    trust.add_argument("-k", "--insecure", action="store_true", help="take any certificate")
    trust.add_argument("--cacert", type=_trusting, metavar="FILE", help="trust what this authority signed (PEM)")
    return group


# -- what they mean ----------------------------------------------------------------------------------------------------


def request(options: argparse.Namespace) -> tuple[list[tuple[str, str]], bytes | None]:
    """The fields and the body that `add_request` has read. A body without a Content-Type gets one: that of JSON if it
    is JSON, else that of a form, as curl does; several are joined with `&`."""
    headers: list[tuple[str, str]] = list(options.header)
    body = b"&".join(options.data) if options.data else None
    if body is not None and not any(name.lower() == "content-type" for name, _ in headers):
        headers.append(("Content-Type", _content_type(body)))
    return headers, body


def trust(options: argparse.Namespace) -> ssl.SSLContext | None:
    """Whom `add_reach` was told to trust; None for the system's authorities."""
    if not options.insecure:
        return options.cacert  # type: ignore[no-any-return]
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def advice(error: BaseException) -> str:
    """What to try when there was no connection, to be put behind `error`; "" if nothing is known."""
    if isinstance(error.__cause__, ssl.SSLCertVerificationError):
        return "; --cacert FILE trusts an authority of your own, and -k any certificate"
    return ""


def leads_to(url: str, location: str) -> str:
    """Where a redirect leads, in full: its Location may be relative to the URL asked for (RFC 9110 section 10.2.2)."""
    try:
        return urljoin(url, location)
    except ValueError:  # no URL, as "http://["
        return location


# -- their values ------------------------------------------------------------------------------------------------------


def url(text: str) -> str:
    """A URL as one types it: `:8000/clock` is of this machine, and where no scheme is named it is http."""
    if re.match(r"https?://", text, re.IGNORECASE):
        return text
    if scheme := re.match(r"([a-z][a-z0-9+.-]*)://", text, re.IGNORECASE):
        raise ArgumentTypeError(f"a URL begins with http:// or https://, not {scheme[0]}")
    return f"http://localhost{text}" if text.startswith((":", "/")) else f"http://{text}"


def header(text: str) -> tuple[str, str]:
    """A header field, `Name: value`. The value's bytes are those that were typed: as Latin-1, as the wire has them."""
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise ArgumentTypeError(f'a header is "Name: value", not {text!r}')
    return name.strip(), os.fsencode(value.strip()).decode("latin-1")


def seconds(text: str) -> float:
    """A time in seconds, above 0 and finite."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise ArgumentTypeError(f"a time is a number of seconds above 0, not {text!r}")
    return value


def _data(text: str) -> bytes:
    if not text.startswith("@"):
        return os.fsencode(text)
    if text == "@-" and sys.stdin is None:
        raise ArgumentTypeError("@- cannot be read: there is no standard input, it is closed")
    try:
        return sys.stdin.buffer.read() if text == "@-" else Path(text[1:]).read_bytes()
    except OSError as exc:
        raise ArgumentTypeError(f"{text} cannot be read: {exc.strerror}") from exc


def _content_type(body: bytes) -> str:
    try:
        json.loads(body)
    except (ValueError, RecursionError):
        return "application/x-www-form-urlencoded"
    return "application/json"


def _trusting(file: str) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=file)
    except OSError as exc:  # an SSLError is one
        raise ArgumentTypeError(f"{file} cannot be used: {exc.strerror or exc}") from exc
