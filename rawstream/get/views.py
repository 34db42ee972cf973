"""How `get` shows a stream to a person: pieces of a body in, text for a terminal out. No I/O and no clock in here.

A view takes the pieces as they come and gives what can be shown of them now: text at once, an item or an event when it
is whole. `Gutter` puts before each piece how long it was waited for, and how many bytes it has.
"""

from __future__ import annotations

import codecs
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from rawstream.items import EventData
from rawstream.sse import Decoder, Event

BOLD, DIM, RED, GREEN, YELLOW, CYAN = "1", "2", "31", "32", "33", "36"
"""What SGR (ECMA-48 section 8.3.117) calls them."""

# All that a terminal may take for a command (C0 but for tab and line feed, DEL, C1), and Unicode's bidirectional
# formatting characters, which turn the order of letters round, so that a text looks like another one.
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


@dataclass(frozen=True, slots=True)
class Style:
    """What may be done to the text: `colours`; `safe`, for a terminal, shows control characters as `\\x1b`."""

    colours: bool = False
    safe: bool = False

    def paint(self, text: str, *codes: str) -> str:
        """The text in these colours."""
        return f"\x1b[{';'.join(codes)}m{text}\x1b[0m" if self.colours and text else text

    def clean(self, text: str) -> str:
        """What a server sent, so that it cannot move the cursor, name the window or fill the clipboard."""
        return _CONTROLS.sub(self._escaped, text) if self.safe else text

    def _escaped(self, match: re.Match[str]) -> str:
        code = ord(match[0])
        return self.paint(f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}", RED)


class View(Protocol):
    """One way to show a body."""

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
        self._elements = _Elements()
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


_MARK = re.compile(r'["\\\[\]{},]')
_STRING_OR_SPACE = re.compile(r'("(?:[^"\\]|\\.)*")|\s+')


def _on_one_line(item: str) -> str:
    item = item.strip()
    if "\n" in item:
        item = _STRING_OR_SPACE.sub(lambda match: match[1] or "", item)
    return item + "\n" if item else ""


class _Elements:
    """The elements of an array's text, of which the "[" is gone: each as it stands there, in linear time.

    One ends with its last quotation mark or bracket, without waiting for the comma; a number or a word has to wait.
    Blank ones come out where a comma follows.
    """

    def __init__(self) -> None:
        self._pieces: list[str] = []  # of an element whose end has not come
        self._depth = 1
        self._in_string = False
        self._escaped = -1  # the place in the text to come of a character that has a backslash before it

    def feed(self, text: str) -> Iterator[str]:
        """The elements that end in this piece."""
        begin = 0
        for match in _MARK.finditer(text):
            mark, place = match[0], match.start()
            if place == self._escaped:
                continue
            if self._in_string and mark == "\\":
                self._escaped = place + 1
            elif mark == '"':
                self._in_string = not self._in_string
            elif not self._in_string:
                self._depth += (mark in "[{") - (mark in "]}")
            if self._depth == 1 and not self._in_string and mark in '"]},':
                end = place if mark == "," else match.end()
                self._pieces.append(text[begin:end])
                yield self.end()
                begin = match.end()
            elif self._depth == 0:
                self._pieces.append(text[begin:place])
                yield self.end()
                begin = match.end()
        self._escaped = self._escaped - len(text) if self._escaped >= len(text) else -1
        self._pieces.append(text[begin:])

    def end(self) -> str:
        """What there is of the element whose end has not come."""
        item = "".join(self._pieces)
        self._pieces.clear()
        return item


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
    """The data of each server-sent event, and nothing else of it. Our own server's `stream-end` and such are no items.

    Raises StreamFailed for its `stream-error`.
    """

    def __init__(self, style: Style) -> None:
        self._style = style
        self._data = EventData(sys.maxsize)

    def feed(self, data: bytes) -> str:
        return "".join(self._style.clean(text) + "\n" for text in self._data.feed(data))

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
        self.pieces = self.bytes = 0

    def feed(self, data: bytes, now: float) -> str:
        """A piece that came at `now`, in seconds. Where nothing of it can be shown yet, three dots say so."""
        waited, self._last = now - self._last, now
        self._longest = max(self._longest, waited)
        self.pieces += 1
        self.bytes += len(data)
        return self._beside(waited, size(len(data)), self._view.feed(data) or self._style.paint("...", DIM))

    def head(self, text: str, now: float) -> str:
        """The response's head, which came at `now`."""
        waited, self._last = now - self._last, now
        return self._beside(waited, "head", text)

    def end(self, now: float) -> str:
        """What is left, now that no more comes."""
        waited, self._last = now - self._last, now
        text = self._view.end()
        return self._beside(waited, "end", text) if text else ""

    def _beside(self, waited: float, what: str, text: str) -> str:
        colour = DIM if waited < 0.01 else GREEN if waited < 1 else YELLOW
        bar = self._style.paint("|", DIM)
        told = f"{self._style.paint(f'{duration(waited):>8}', colour)} {self._style.paint(f'{what:>8}', DIM)} {bar} "
        blank = f"{'':17} {bar} "
        return told + text.removesuffix("\n").replace("\n", "\n" + blank) + "\n"

    def summary(self) -> str:
        """All of it, in one line."""
        pieces = f"{self.pieces} piece" + ("" if self.pieces == 1 else "s")
        took = duration(self._last - self._began)
        return f"{pieces}, {size(self.bytes)} in {took}; longest wait {duration(self._longest)}"


def duration(seconds: float) -> str:
    """As a person reads it: `0.3 ms`, `501 ms`, `2.50 s`, `130 s`."""
    if seconds < 0.0995:
        return f"{seconds * 1000:.1f} ms"
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    return f"{seconds:.2f} s" if seconds < 99.995 else f"{seconds:.0f} s"


def size(count: int) -> str:
    """As a person reads it, in powers of 1000: `6 B`, `16.4 kB`, `1.2 MB`."""
    number, unit = float(count), "B"
    for larger in ("kB", "MB", "GB"):
        if number < 999.95:
            break
        number, unit = number / 1000, larger
    return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
