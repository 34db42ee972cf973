"""Where a pump writes to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

from .framing import Frame


class Out(Protocol):
    """The socket's own side of a sink."""

    def write(self, data: bytes) -> bool:
        """Send what is framed; never waits or fails. Returns whether more may be written."""


Way: TypeAlias = tuple[Frame, Out]


class Sink(Protocol):
    """The way to one reader. It never makes the iterator wait by itself: that is done by the pump, with `drain`."""

    @property
    def writable(self) -> bool:
        """False while the reader is behind, and when it is gone."""

    def write(self, payload: bytes) -> bool:
        """Send a piece; never waits or fails. b"" says that the iterator waits. Returns `writable`."""

    def way(self) -> Way:
        """`write` in two calls, for who has written before: what frames a piece, and where it is written."""

    async def drain(self) -> None:
        """Wait until `writable`. Raises Disconnected when the reader is gone."""

    def later(self, seconds: float, callback: Callable[[], None]) -> Any:
        """Call back after so many seconds, unless `cancel()` of what it returns is called."""
