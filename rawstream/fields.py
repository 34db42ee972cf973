"""Names with values, as requests and responses have them: header fields, and the parameters of a query."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache, partial
from typing import Any, ClassVar, TypeAlias

Pairs: TypeAlias = Iterable[tuple[str, str]] | Mapping[str, str]


def pairs(headers: Pairs) -> tuple[tuple[str, str], ...]:
    """Header fields as pairs, whichever way they were given: pairs, a mapping, or `Headers` with repeated names."""
    if type(headers) in (list, tuple):
        return tuple(headers)  # type: ignore[arg-type]  # the usual way, and isinstance(_, Mapping) is slow
    if isinstance(headers, Headers):
        return headers.pairs
    return tuple(headers.items()) if isinstance(headers, Mapping) else tuple(headers)


_lower = lru_cache(512)(str.lower)  # thousands of connections hold the same few names


class _MultiMap(Mapping[str, str]):
    """Names with one or more values each, in the order in which they came."""

    __slots__ = ("_keys", "_pairs")
    _key: ClassVar[staticmethod[[str], str]] = staticmethod(lambda name: name)
    """What of a name counts when it is compared: here all of it."""

    def __init__(self, pairs: Iterable[tuple[str, str]] = ()) -> None:
        self._pairs = tuple(pairs)
        key = self._key
        # Looked through from end to end: for the few that there are, a dict is four times as large, and no faster.
        self._keys = tuple([key(name) for name, _ in self._pairs])

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """All of them, as they came."""
        return self._pairs

    @staticmethod
    def _one(values: list[str]) -> str:
        """What several values of a name are as one."""
        return values[-1]

    def get_all(self, name: str) -> list[str]:
        """Every value of `name`, in order; an empty list if there is none."""
        wanted = self._key(name)
        return [value for key, (_, value) in zip(self._keys, self._pairs, strict=True) if key == wanted]

    def get(self, name: str, default: Any = None) -> Any:
        """The value of `name`, or `default`."""
        key, keys = self._key(name), self._keys
        count = keys.count(key)
        if count == 1:
            return self._pairs[keys.index(key)][1]
        return self._one(self.get_all(name)) if count else default

    def lacks(self, names: frozenset[str]) -> bool:
        """None of these is there; `names` as they are compared, so those of fields in lower case."""
        return names.isdisjoint(self._keys)

    def __getitem__(self, name: str) -> str:
        if name in self:
            return str(self.get(name))
        raise KeyError(name)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._key(name) in self._keys

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(self._keys))

    def __len__(self) -> int:
        return len(set(self._keys))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, type(self)) and self._pairs == other._pairs

    def __hash__(self) -> int:
        return hash(self._pairs)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({list(self._pairs)!r})"


class Query(_MultiMap):
    """The parameters of a target's query, percent-decoded. `query["a"]` is the last `a`; `get_all("a")` has all."""

    __slots__ = ()


class Headers(_MultiMap):
    """Header fields. Names compare without case, and come out in lower case when iterated; `pairs` has them as given.

    `headers["accept"]` joins the values of a repeated field with ", " (RFC 9110 section 5.3).
    """

    __slots__ = ()
    _key = staticmethod(_lower)

    @staticmethod
    def _one(values: list[str]) -> str:
        return ", ".join(values)


_CONTROLS = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


def encoded(fields: Iterable[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    """Header fields as they are sent. Raises ValueError, TypeError or AttributeError for what none can have."""
    # RFC 9110 section 5.5: field values are bytes, of which only ASCII is sure to be read alike everywhere.
    found = [(name.encode("ascii"), value.encode("latin-1")) for name, value in fields]
    if bad := [name for name, value in found if _CONTROLS.search(value)]:  # most of which h11 would send
        raise ValueError(f"Illegal control character in the value of {bad[0]!r}")
    return found


_name = lru_cache(512)(partial(str, encoding="ascii"))  # the few that thousands of heads have


def decoded(fields: Iterable[tuple[bytes, bytes]]) -> Headers:
    """Header fields as they came."""
    return Headers([(_name(name), value.decode("latin-1")) for name, value in fields])
