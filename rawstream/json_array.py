"""A JSON array, item by item while it arrives (RFC 8259). No I/O.

Items that are complete in the bytes that are here are parsed where they stand, by `json`: many together where that is
possible, for a call of it costs more than a small item. One that is not complete is kept, and only looked through for
its end: each of its bytes once, until that has come. So it takes linear time however the array is cut, and no more
memory than the largest item, or what one read from the socket brought.

An item is given out as soon as its last character is here: at the closing bracket or quotation mark, without waiting
for the comma. Only a number, or `true`, must wait for what follows: there may be another digit.
"""

from __future__ import annotations

import codecs
import enum
import re
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

from .errors import ContentError, ItemTooLarge
from .items import DECODER, Reader, load

_SPACE = re.compile(r"[ \t\n\r]*+")
_COMMA = re.compile(r"[ \t\n\r]*+,[ \t\n\r]*+")
_SEPARATORS = re.compile(r"[,\] \t\n\r]*+")
# Up to the next bracket, over whole strings. (`*+` and `++` give nothing back: a string that never ends costs no more.)
_STRING = r'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_TO_BRACKET = re.compile(rf'(?:[^"{{}}\[\]]++|{_STRING})*+', re.DOTALL)
_TO_SEPARATOR = re.compile(r'[^",{}\[\] \t\n\r]*+')
_NESTED = rf'[{{\[](?:[^"{{}}\[\]]++|{_STRING})*+[}}\]]'
for _ in range(3):  # what is nested deeper is parsed on its own
    _NESTED = rf'[{{\[](?:[^"{{}}\[\]]++|{_STRING}|{_NESTED})*+[}}\]]'
COMPLETE = re.compile(rf'(?:(?:[^",{{}}\[\]]++|{_STRING}|{_NESTED})*+,)*+', re.DOTALL)
"""Items with a comma behind each; whether they are JSON is not asked."""
_WORTH = 64  # characters of them from which on it is quicker to parse them together
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

    def feed(self, text: str, place: int = 0) -> int:
        """Where in `text`, of which the next part begins at `place`, the value ends; -1 if not in this one."""
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


class Elements:
    """The elements of an array's text, of which the first `[` is gone: the text of each, as it stands there.

    To judge whether they are JSON is left to others: what is none comes out as text of some kind.
    """

    def __init__(self) -> None:
        self._parts: list[str] = []  # of an element whose end has not come
        self._extent = Extent()

    def feed(self, text: str) -> Iterator[str]:
        """The elements that end in the next part. A number or a word has to wait for what follows."""
        place = 0
        while True:
            if not self._parts:
                place = _SEPARATORS.match(text, place).end()  # type: ignore[union-attr]  # it matches ""
                self._extent = Extent()
            if place == len(text):
                return
            end = self._extent.feed(text, place)
            self._parts.append(text[place:] if end < 0 else text[place:end])
            if end < 0:
                return
            yield self.end()
            place = end

    def end(self) -> str:
        """What there is of an element whose end has not come; "" if there is none."""
        element = "".join(self._parts)
        self._parts.clear()
        return element


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

    def feed(self, data: bytes) -> Iterable[Any]:
        try:
            return self._items(self._utf8.decode(data))
        except UnicodeDecodeError as exc:
            return chain(self._items(exc.object[: exc.start].decode("utf-8-sig")), self._no_utf8())

    def end(self) -> Iterator[Any]:
        if self._utf8.getstate()[0]:
            yield from self._no_utf8()
        if self._parts and self._behind is _Next.NOTHING:
            yield self._kept()
        if self._next is not _Next.NOTHING:
            belongs = self._next.value
            raise ContentError(f"the JSON of the response ends behind {self._count} items, where {belongs} belongs")

    def _no_utf8(self) -> Iterator[Any]:
        yield from ()  # the items before count first
        raise ContentError(f"item {self._count} of the response is not UTF-8, as JSON is")

    def _items(self, text: str) -> Iterator[Any]:
        place = 0
        if self._parts:
            place = self._extent.feed(text)
            self._keep(text if place < 0 else text[:place])
            if place < 0:
                return
            yield self._kept()
        place = _SPACE.match(text, place).end()  # type: ignore[union-attr]  # it matches ""
        tried = 0  # up to where items were parsed together, if they could be
        while place < len(text):
            if self._next is not _Next.ITEM and self._punctuation(text[place]):
                place = _SPACE.match(text, place + 1).end()  # type: ignore[union-attr]
                continue
            if tried <= place < len(text) - _WORTH and self._behind is _Next.COMMA:
                values, place, tried = self._together(text, place)
                if values:
                    yield from values
                    continue
            value, end = self._value(text, place)
            if end < 0:
                return
            self._count += 1
            self._next = self._behind
            yield value
            if self._next is _Next.COMMA and (comma := _COMMA.match(text, end)):  # as almost always
                self._next = _Next.ITEM
                place = comma.end()
            else:
                place = _SPACE.match(text, end).end()  # type: ignore[union-attr]

    def _together(self, text: str, place: int) -> tuple[list[Any], int, int]:
        """The items from here on that can be parsed together, where the next one begins, and where they end."""
        end = COMPLETE.match(text, place).end()  # type: ignore[union-attr]  # it matches ""
        values: list[Any] = []
        if end - place >= _WORTH:
            try:
                values = DECODER.decode(f"[{text[place : end - 1]}]")
            except (ValueError, RecursionError):
                pass  # which of them it is comes out when they are parsed one by one
            else:
                self._count += len(values)
                self._next = _Next.ITEM
                place = _SPACE.match(text, end).end()  # type: ignore[union-attr]
        return values, place, end

    def _value(self, text: str, place: int) -> tuple[Any, int]:
        """The item that begins here and where it ends; -1 if that has not come: then it is kept."""
        try:
            value, end = DECODER.raw_decode(text, place)
        except (ValueError, RecursionError):
            pass  # it is not complete, or wrong
        else:
            if text[place] in '"[{' or end == _TO_SEPARATOR.match(text, end).end() < len(text):  # type: ignore[union-attr]
                return value, end
        self._extent = Extent()
        end = self._extent.feed(text, place)
        if end >= 0:
            return load(text[place:end], self._count), end  # which raises what is wrong
        self._keep(text[place:])
        return None, -1

    def _keep(self, text: str) -> None:
        self._parts.append(text)
        self._size += len(text)
        if self._size > self._limit:
            raise ItemTooLarge(f"item {self._count} of the response has more than {self._limit} bytes")

    def _kept(self) -> Any:
        """The item that was kept, and is complete."""
        text = "".join(self._parts)
        self._parts, self._size = [], 0
        value = load(text, self._count)
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
