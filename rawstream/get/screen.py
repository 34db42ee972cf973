"""What the user of `get` sees of an answer, in the view that the options and the answer ask for. No I/O."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Iterator

from rawstream import sse
from rawstream.errors import ContentError
from rawstream.fetched import JSON_LINES, ClientResponse
from rawstream.incoming import Arrival
from rawstream.inflate import Identity, Unpack, unpack
from rawstream.terminal import BOLD, CYAN, DIM, Style

from .views import Data, Events, Gutter, Json, Lines, Text, View


class Screen:
    """Makes the bytes that are written of what comes."""

    def __init__(self, options: argparse.Namespace, style: Style) -> None:
        self._options = options
        self._style = style
        self._content: Unpack = Identity()
        self._view: View | None = None  # None: the bytes as they are
        self._gutter: Gutter | None = None
        self._amid_line = False
        self.begun = False
        """Whether there was an answer."""
        self.doubt = ""
        """What is odd about it, if the server sends something else than was asked for."""

    def head(self, response: ClientResponse) -> bytes:
        """The answer has begun: how it is shown is settled. Returns its head, if that is wanted.

        Raises ContentError for a Content-Encoding that we do not know.
        """
        form = self._options.form if 200 <= response.status < 300 or self._options.form == "raw" else None
        charset = re.search(r'charset="?([^\s;"]+)', response.headers.get("content-type", ""), re.IGNORECASE)
        self._begin(form, response.content_type, charset[1] if charset else "utf-8", response.began)
        if form != "raw":
            self._content = _content(response)
        if not _fits(form, response.content_type):
            self.doubt = f"no {form} were sent, but {response.content_type or 'something without a Content-Type'}"
        if not self._options.include:
            return b""
        text = self._head(response)
        return self._bytes(self._gutter.head(text, response.head_at) if self._gutter else text + "\n")

    def _head(self, response: ClientResponse) -> str:
        style = self._style
        code = style.paint(f"{response.status} {style.clean(response.reason)}".rstrip(), BOLD, CYAN)
        fields = (
            f"{style.paint(style.clean(name), DIM)}: {style.clean(value)}\n" for name, value in response.headers.pairs
        )
        return f"HTTP/{response.http_version} {code}\n" + "".join(fields)

    def _begin(self, form: str | None, content_type: str, charset: str, began: float) -> None:
        self.begun = True
        if form == "raw" or (form is None and not self._style.safe and not self._options.timing):
            return
        self._view = _view(form, content_type, charset, self._style)
        if self._options.timing:
            self._gutter = Gutter(self._view, self._style, began)

    def arrival(self, arrival: Arrival) -> Iterator[bytes]:
        """What has come. Raises ContentError where it is not what the head says, StreamFailed where it says so."""
        # Without a gutter nobody sees the chunks, and many small ones would cost a write each.
        for piece in arrival.pieces if self._gutter else [b"".join(arrival.pieces)]:
            yield from self._piece(self._content.feed(piece), len(piece), arrival.time)

    def event(self, event: sse.Event, began: float, when: float) -> Iterator[bytes]:
        """An event of a stream that is resumed, which `began` and has come, in seconds."""
        if not self.begun:
            self._begin(self._options.form, "text/event-stream", "utf-8", began)
        data = sse.encode(event)
        yield from self._piece((data,), len(data), when)

    def _piece(self, parts: Iterable[bytes], count: int, when: float) -> Iterator[bytes]:
        if (view := self._view) is None:
            yield from parts
            return
        for text in self._gutter.feed(parts, count, when) if self._gutter else map(view.feed, parts):
            yield self._bytes(text)
        if view.failed is not None:
            raise view.failed

    def complete(self) -> None:
        """The body is here, to its end. Raises IncompleteResponse if what it unpacks to is not."""
        self._content.end()

    def end(self, when: float) -> bytes:
        """No more comes: what is left is shown, and on a terminal the prompt begins on a line of its own."""
        rest = b""
        if self._view is not None:
            rest = self._bytes(self._gutter.end(when) if self._gutter else self._view.end())
        newline = b"\n" if self._amid_line and self._style.safe else b""
        self._view, self._amid_line = None, False
        return rest + newline

    def summary(self) -> str:
        """All of it in one line, if the times were asked for."""
        return self._gutter.summary() if self._gutter else ""

    def _bytes(self, text: str) -> bytes:
        if text:
            self._amid_line = not text.endswith("\n")
        return text.encode("utf-8", "backslashreplace")


def _is_json(content_type: str) -> bool:
    return content_type == "application/json" or content_type.endswith("+json")


def _fits(form: str | None, content_type: str) -> bool:
    """Whether this is what the form asks for."""
    is_events = content_type == "text/event-stream"
    if form == "items":
        return is_events or content_type in JSON_LINES or _is_json(content_type)
    return is_events or form != "events"


def _content(response: ClientResponse) -> Unpack:
    coding = response.headers.get("content-encoding", "")
    try:
        return unpack(coding)
    except ContentError as exc:
        raise ContentError(
            f"the body's Content-Encoding is {coding[:40]}, and only gzip and deflate are undone here: "
            "--raw prints the bytes as they come"
        ) from exc


def _view(form: str | None, content_type: str, charset: str, style: Style) -> View:
    """The way to show a body of this type, if this form is asked for. JSON is UTF-8 (RFC 8259 section 8.1)."""
    if form == "text":
        return Text(style, charset)
    if content_type == "text/event-stream":
        return Data(style) if form == "items" else Events(style)
    if content_type in JSON_LINES:
        return Lines(style)
    return Json(style) if _is_json(content_type) or form == "items" else Text(style, charset)
