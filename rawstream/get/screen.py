"""What the user of `get` sees: where it is written, and in which view, as the options and the answer have it."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import re
import select
import stat
import sys
import time
from collections.abc import Iterator

from rawstream.client import ClientResponse
from rawstream.fetched import JSON_LINES

from .views import BOLD, CYAN, DIM, Data, Events, Gutter, Json, Lines, Style, Text, View


def say(text: str) -> None:
    """One line on stderr."""
    if sys.stderr is None:  # by `2>&-`
        return
    line = Style(safe=sys.stderr.isatty()).clean(" ".join(text.split()))
    with contextlib.suppress(OSError):  # nobody may read it
        print(f"rawstream: {line}", file=sys.stderr, flush=True)


class Output:
    """A descriptor that is written to at once: nothing is gathered."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.is_terminal = os.isatty(descriptor)
        self.unread = False
        """Whether it is a pipe whose reader has gone."""

    def write(self, data: bytes) -> None:
        """Write all of it; a slow reader is waited for, and the server with it. Raises BrokenPipeError."""
        while data:
            try:
                data = data[os.write(self._descriptor, data) :]
            except BlockingIOError:  # whoever gave it to us made it so
                select.select([], [self._descriptor], [])

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Cancel the current task when nobody reads any more, as `head -1`: not only at the next write."""
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        assert task is not None

        def gone() -> None:
            loop.remove_reader(self._descriptor)
            self.unread = True
            task.cancel()

        if stat.S_ISFIFO(os.fstat(self._descriptor).st_mode):
            loop.add_reader(self._descriptor, gone)  # of the writing end, this tells an error, and nothing else
        try:
            yield
        finally:
            loop.remove_reader(self._descriptor)


class Screen:
    """What the user sees of it, in the way that was asked for."""

    def __init__(self, options: argparse.Namespace, output: Output) -> None:
        self._options, self._output = options, output
        environment = os.environ
        plain = environment.get("NO_COLOR") or environment.get("TERM") == "dumb"
        self._style = Style(colours=output.is_terminal and not plain, safe=output.is_terminal)
        self._began = time.monotonic()
        self._view: View | None = None
        self._gutter: Gutter | None = None
        self._amid_line = False
        self.begun = False
        """Whether there was an answer."""

    def head(self, response: ClientResponse) -> None:
        """The answer has begun: how it is shown is settled, and its head is shown if that is wanted."""
        form = self._options.form if 200 <= response.status < 300 or self._options.form == "raw" else None
        charset = re.search(r'charset="?([^\s;"]+)', response.headers.get("content-type", ""), re.IGNORECASE)
        self._begin(form, response.content_type, charset[1] if charset else "utf-8")
        if self._options.include:
            text = self._head(response)
            self._write(self._gutter.head(text, response.head_at) if self._gutter else text + "\n")

    def _head(self, response: ClientResponse) -> str:
        style = self._style
        code = style.paint(f"{response.status} {style.clean(response.reason)}".rstrip(), BOLD, CYAN)
        fields = (
            f"{style.paint(style.clean(name), DIM)}: {style.clean(value)}\n" for name, value in response.headers.pairs
        )
        return f"HTTP/{response.http_version} {code}\n" + "".join(fields)

    def _begin(self, form: str | None, content_type: str, charset: str) -> None:
        self.begun = True
        if form == "raw" or (form is None and not self._output.is_terminal and not self._options.timing):
            return
        self._view = _view(form, content_type, charset, self._style)
        if self._options.timing:
            self._gutter = Gutter(self._view, self._style, self._began)

    def piece(self, data: bytes) -> None:
        """A piece of the body, or an event of a stream that is resumed."""
        if not self.begun:
            self._begin(self._options.form, "text/event-stream", "utf-8")
        if self._gutter is not None:
            self._write(self._gutter.feed(data, time.monotonic()))
        elif self._view is not None:
            self._write(self._view.feed(data))
        else:
            self._output.write(data)

    def end(self) -> None:
        """No more comes: what is left is shown, and the prompt begins on a line of its own."""
        if self._gutter is not None:
            self._write(self._gutter.end(time.monotonic()))
            say(self._gutter.summary())
        elif self._view is not None:
            self._write(self._view.end())
        if self._amid_line and self._output.is_terminal:
            self._write("\n")
        self._view = self._gutter = None

    def _write(self, text: str) -> None:
        if text:
            self._amid_line = not text.endswith("\n")
            self._output.write(text.encode("utf-8", "backslashreplace"))


def _view(form: str | None, content_type: str, charset: str, style: Style) -> View:
    """The way to show a body of this type, if this form is asked for. JSON is UTF-8 (RFC 8259 section 8.1)."""
    is_lines = content_type in JSON_LINES
    is_json = content_type == "application/json" or content_type.endswith("+json")
    is_events = content_type == "text/event-stream"
    if form == "text":
        return Text(style, charset)
    if is_events or (form == "events" and not is_lines and not is_json):
        return Data(style) if form == "items" else Events(style)
    if is_lines:
        return Lines(style)
    return Json(style) if is_json or form == "items" else Text(style, charset)
