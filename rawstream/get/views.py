"""How `get` shows a stream to a person: pieces of a body in, text for a terminal out. No I/O and no clock in here.

A view takes the pieces as they come and gives what can be shown of them now: text at once, an item or an event when it
is whole. `Gutter` puts before each piece how long it was waited for, and how many bytes it has.
"""

from __future__ import annotations

import codecs
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from rawstream.errors import StreamFailed
from rawstream.items import EventData
from rawstream.json_array import Elements
from rawstream.sse import Decoder, Event
from rawstream.terminal import BOLD, CYAN, DIM, GREEN, RED, YELLOW, Style, duration, size


class View(Protocol):
    """One way to show a body."""

    failed: StreamFailed | None = None
    """What a server told of its stream's failure. Nothing is shown of what comes behind."""

    def feed(self, data: bytes) -> str:
        """What can be shown once this piece has come."""

    def end(self) -> str:
        """What is left when no more comes."""


# -- text --------------------------------------------------------------------------------------------------------------


class _Characters:
    """Bytes to characters, however they are cut. A byte that is no character is shown as `\\xff`."""

    def __init__(self, charset: str) -> None:
        try:
            b"a".decode(charset, "replace")
        except (LookupError, ValueError):  # unknown, or no encoding of text
            charset = "utf-8"
        self._decoder = codecs.getincrementaldecoder(charset)("backslashreplace")
        self._held = ""  # a CR, until it is known whether a LF follows

    def decode(self, data: bytes, last: bool = False) -> str:
        text = self._held + self._decoder.decode(data, last)
        self._held = "\r" if text.endswith("\r") and not last else ""
        return text.removesuffix(self._held).replace("\r\n", "\n")


class Text(View):
    """Text as it comes, without waiting for the end of a line; only half a character waits for its other half."""

    def __init__(self, style: Style, charset: str = "utf-8") -> None:
        self._style = style
        self._characters = _Characters(charset)

    def feed(self, data: bytes) -> str:
        return self._style.clean(self._characters.decode(data))

    def end(self) -> str:
        return self._style.clean(self._characters.decode(b"", last=True))


# -- items of JSON -----------------------------------------------------------------------------------------------------


class Lines(View):
    """A line as soon as it is whole: JSON lines. Empty lines, which keep a connection alive, are left out."""

    def __init__(self, style: Style, charset: str = "utf-8") -> None:
        self._style = style
        self._characters = _Characters(charset)
        self._line: list[str] = []  # the pieces of a line whose end has not come

    def feed(self, data: bytes) -> str:
        return self._whole(self._characters.decode(data))

    def end(self) -> str:
        return self._whole(self._characters.decode(b"", last=True) + "\n")

    def _whole(self, text: str) -> str:
        lines = text.split("\n")
        self._line.append(lines[0])
        if len(lines) == 1:
            return ""
        lines[0] = "".join(self._line)
        self._line = [lines.pop()]
        return "".join(self._style.clean(line) + "\n" for line in lines if line.strip())


class Json(View):
    """An item a line, as soon as it is whole, where the value is an array; any other value as text, as it comes.

    An item is shown as it was sent, but for spaces and line breaks between its parts where it was sent in several
    lines: numbers keep their digits. What is no JSON comes out as text of some kind: to judge it is not asked here.
    """

    def __init__(self, style: Style, charset: str = "utf-8") -> None:
        self._style = style
        self._characters = _Characters(charset)
        self._elements = Elements()
        self._shown: Callable[[str], str] = self._begun

    def feed(self, data: bytes) -> str:
        return self._shown(self._characters.decode(data))

    def end(self) -> str:
        shown = self._shown(self._characters.decode(b"", last=True))
        return shown + self._style.clean(_on_one_line(self._elements.end()))

    def _begun(self, text: str) -> str:
        text = text.lstrip("\ufeff \t\r\n")
        if not text:
            return ""
        self._shown = self._listed if text.startswith("[") else self._style.clean
        return self._shown(text.removeprefix("["))

    def _listed(self, text: str) -> str:
        return "".join(self._style.clean(_on_one_line(item)) for item in self._elements.feed(text))


_STRING_OR_SPACE = re.compile(r'("(?:[^"\\]|\\.)*")|\s+')


def _on_one_line(item: str) -> str:
    item = item.strip()
    if "\n" in item:
        item = _STRING_OR_SPACE.sub(lambda match: match[1] or "", item)
    return item + "\n" if item else ""


# -- events ------------------------------------------------------------------------------------------------------------


class Events(View):
    """A server-sent event a line: its name, its id as `#id`, its data. More lines of data are indented."""

    def __init__(self, style: Style) -> None:
        self._style = style
        self._decoder = Decoder()
        self._retry: int | None = None  # which is shown when it changes, not with each event

    def feed(self, data: bytes) -> str:
        return "".join(map(self._shown, self._decoder.feed(data)))

    def end(self) -> str:
        return ""  # what the end leaves unfinished is no event

    def _shown(self, event: Event) -> str:
        style, parts = self._style, []
        if event.event:
            parts.append(style.paint(style.clean(event.event), BOLD, RED if event.event == "stream-error" else CYAN))
        if event.id:
            parts.append(style.paint("#" + style.clean(event.id), DIM))
        if event.retry is not None and event.retry != self._retry:
            self._retry = event.retry
            parts.append(style.paint(f"retry={event.retry}", DIM))
        parts += [style.clean("\n  ".join(str(event.data).split("\n")))]
        return " ".join(parts) + "\n"


class Data(View):
    """The data of each server-sent event alone. Our own server's `stream-end` and such are no items."""

    def __init__(self, style: Style) -> None:
        self._style = style
        self._data = EventData(sys.maxsize)

    def feed(self, data: bytes) -> str:
        lines: list[str] = []
        try:
            lines.extend(self._style.clean(text) + "\n" for text in self._data.feed(data))
        except StreamFailed as exc:
            self.failed = exc
        return "".join(lines)

    def end(self) -> str:
        return ""


# -- the gutter --------------------------------------------------------------------------------------------------------


class Gutter:
    """A view's text with a gutter before it: what came in one piece stands behind one time and one size."""

    def __init__(self, view: View, style: Style, began: float) -> None:
        self._view, self._style = view, style
        self._last = began
        self._began = began
        self._longest = 0.0
        self._bar = style.paint("|", DIM)
        self._blank = f"{'':17} {self._bar} "
        self.pieces = self.bytes = 0

    def feed(self, parts: Iterable[bytes], count: int, when: float) -> Iterator[str]:
        """A piece of `count` bytes that came at `when`, in seconds, and the parts that it unpacks to.

        Where nothing of it can be shown yet, three dots say so."""
        waited = self._waited(when)
        self._longest = max(self._longest, waited)
        self.pieces += 1
        self.bytes += count
        told = first = self._told(waited, size(count))
        for part in parts:
            if text := self._view.feed(part):
                yield self._beside(told, text)
                told = self._blank
        if told is first:
            yield self._beside(told, self._style.paint("...", DIM))

    def head(self, text: str, when: float) -> str:
        """The response's head, which came at `when`."""
        return self._beside(self._told(self._waited(when), "head"), text)

    def end(self, when: float) -> str:
        """What is left, now that no more comes."""
        waited = self._waited(when)
        text = self._view.end()
        return self._beside(self._told(waited, "end"), text) if text else ""

    def _waited(self, when: float) -> float:
        waited, self._last = max(0.0, when - self._last), max(when, self._last)
        return waited

    def _told(self, waited: float, what: str) -> str:
        colour = DIM if waited < 0.01 else GREEN if waited < 1 else YELLOW
        paint = self._style.paint
        return f"{paint(f'{duration(waited):>8}', colour)} {paint(f'{what:>8}', DIM)} {self._bar} "

    def _beside(self, told: str, text: str) -> str:
        return told + text.removesuffix("\n").replace("\n", "\n" + self._blank) + "\n"

    def summary(self) -> str:
        """All of it, in one line."""
        pieces = f"{self.pieces} piece" + ("" if self.pieces == 1 else "s")
        took = duration(self._last - self._began)
        return f"{pieces}, {size(self.bytes)} in {took}; longest wait {duration(self._longest)}"
