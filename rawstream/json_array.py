"""A JSON array, item by item while it arrives (RFC 8259). No I/O.

An item that is complete in the bytes that are here is parsed where it stands, by `json`. One that is not is kept, and
only looked through for its end: each of its bytes once, until that has come. So it takes linear time however the array
is cut, and no more memory than the largest item.

An item is given out as soon as its last character is here: at the closing bracket or quotation mark, without waiting
for the comma. Only a number, or `true`, must wait for what follows: there may be another digit.
"""

from __future__ import annotations

import codecs
import enum
import re
from collections.abc import Iterator
from typing import Any

from .errors import ContentError, ItemTooLarge
from .items import DECODER, Reader, load

_SPACE = re.compile(r"[ \t\n\r]*+")
# Up to the next bracket, over whole strings. (`*+` and `++` give nothing back: a string that never ends costs no more.)
_TO_BRACKET = re.compile(r'(?:[^"{}\[\]]++|"[^"\\]*+(?:\\.[^"\\]*+)*+")*+', re.DOTALL)
_TO_SEPARATOR = re.compile(r'[^",{}\[\] \t\n\r]*+')
_IN_STRING = re.compile(r'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)


class _Next(enum.Enum):
    """What may come next."""

    ARRAY = "an array"
    FIRST = "an item or ]"
    ITEM = "an item"
    COMMA = "a comma or ]"
    NOTHING = "nothing more"


class Extent:
    """Looks for the end of a JSON value that comes in parts. It takes well-formed JSON for granted."""

    __slots__ = ("_depth", "_escaped", "_in_string", "_scalar")

    def __init__(self) -> None:
        self._depth = 0
        self._in_string = False
        self._escaped = False  # the part before ended in a string, with a backslash
        self._scalar = False  # it is a number, or a word

    def feed(self, text: str) -> int:
        """Where in `text`, the next part, the value ends; -1 if not in this one."""
        place = 0
        while place < len(text):
            if self._in_string:
                place, closed = self._string(text, place)
                if closed and not self._depth:
                    return place
                continue
            if not self._depth:
                end = _TO_SEPARATOR.match(text, place).end()  # type: ignore[union-attr]  # it matches "" at least
                self._scalar = self._scalar or end > place
                if self._scalar:
                    return end if end < len(text) else -1
                place = end
            else:
                place = _TO_BRACKET.match(text, place).end()  # type: ignore[union-attr]
            if place < len(text) and (end := self._bracket(text[place], place)) >= 0:
                return end
            place += 1
        return -1

    def _string(self, text: str, place: int) -> tuple[int, bool]:
        """On in a string; returns where that ends, or the text, and which of both."""
        if self._escaped:
            self._escaped = False
            place += 1
        place = _IN_STRING.match(text, place).end()  # type: ignore[union-attr]
        if place == len(text):
            return place, False
        self._in_string = self._escaped = text[place] == "\\"  # which is the last character here
        return place + 1, not self._escaped

    def _bracket(self, char: str, place: int) -> int:
        """A bracket or a quotation mark; returns where the value ends by it, or -1."""
        if char == '"':
            self._in_string = True
        elif char in "{[":
            self._depth += 1
        else:
            self._depth -= 1
            if self._depth <= 0:
                return place + 1
        return -1


class JsonArray(Reader[Any]):
    """The items of an array. A body that is another JSON value is one item."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._utf8 = codecs.getincrementaldecoder("utf-8-sig")()
        self._next = _Next.ARRAY
        self._behind = _Next.COMMA  # what comes behind an item
        self._count = 0  # items before
        self._parts: list[str] = []  # of an item whose end has not come
        self._size = 0  # their characters
        self._extent = Extent()

    def feed(self, data: bytes) -> Iterator[Any]:
        try:
            text, fault = self._utf8.decode(data), None
        except UnicodeDecodeError as exc:
            text, fault = exc.object[: exc.start].decode("utf-8-sig"), exc
        yield from self._items(text)
        if fault is not None:
            raise self._no_utf8() from fault

    def end(self) -> Iterator[Any]:
        if self._utf8.getstate()[0]:
            raise self._no_utf8()
        if self._parts and self._behind is _Next.NOTHING:
            yield self._kept()
        if self._next is not _Next.NOTHING:
            belongs = self._next.value
            raise ContentError(f"the JSON of the response ends behind {self._count} items, where {belongs} belongs")

    def _no_utf8(self) -> ContentError:
        return ContentError(f"JSON is UTF-8, and behind {self._count} items the response is not")

    def _items(self, text: str) -> Iterator[Any]:
        place = 0
        if self._parts:
            place = self._extent.feed(text)
            self._keep(text if place < 0 else text[:place])
            if place < 0:
                return
            yield self._kept()
        while (place := _SPACE.match(text, place).end()) < len(text):  # type: ignore[union-attr]  # it matches ""
            if self._next is not _Next.ITEM and self._punctuation(text[place]):
                place += 1
                continue
            found = self._value(text, place)
            if found is None:
                return
            value, place = found
            yield self._given(value)
            if self._next is _Next.COMMA and text.startswith(",", place):  # as almost always
                self._next = _Next.ITEM
                place += 1

    def _value(self, text: str, place: int) -> tuple[Any, int] | None:
        """The item that begins here and where it ends, or None: then it is kept."""
        try:
            value, end = DECODER.raw_decode(text, place)
        except (ValueError, RecursionError):
            pass  # it is not complete, or wrong
        else:
            if text[place] in '"[{' or end == _TO_SEPARATOR.match(text, end).end() < len(text):  # type: ignore[union-attr]
                return value, end
        self._extent = Extent()
        begun = text[place:]
        if (size := self._extent.feed(begun)) >= 0:
            return load(begun[:size], f"item {self._count}"), place + size  # which raises what is wrong
        self._keep(begun)
        return None

    def _keep(self, text: str) -> None:
        self._parts.append(text)
        self._size += len(text)
        if self._size > self._limit:
            raise ItemTooLarge(f"item {self._count} of the response has more than {self._limit} bytes")

    def _kept(self) -> Any:
        """The item that was kept, and is complete."""
        text = "".join(self._parts)
        self._parts, self._size = [], 0
        return self._given(load(text, f"item {self._count}"))

    def _given(self, value: Any) -> Any:
        self._count += 1
        self._next = self._behind
        return value

    def _punctuation(self, char: str) -> bool:
        """Whether this belongs to the array, and not to its items. Raises ContentError where it is out of place."""
        expected = self._next
        if expected is _Next.COMMA and char == ",":
            self._next = _Next.ITEM
        elif expected is _Next.ARRAY and char == "[":
            self._next = _Next.FIRST
        elif char == "]" and expected in (_Next.COMMA, _Next.FIRST):
            self._next = _Next.NOTHING
        elif expected in (_Next.COMMA, _Next.NOTHING):
            raise ContentError(
                f"behind {self._count} items of the response comes {char!r}, where {expected.value} belongs"
            )
        else:
            if expected is _Next.ARRAY:
                self._behind = _Next.NOTHING
            return False
        return True
