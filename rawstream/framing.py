"""How a body stands on the wire (RFC 9112 sections 6 and 7): its pieces as they go out, and as they came in. No h11."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

from .fields import Headers

Frame: TypeAlias = Callable[[bytes], bytes]
"""What makes a payload the bytes of a piece of the body; of b"" it makes b""."""


def chunked(payload: bytes) -> bytes:
    """`payload` as one chunk (RFC 9112 section 7.1). An empty one makes no chunk: that would end the body."""
    return b"%x\r\n%b\r\n" % (len(payload), payload) if payload else b""


LAST_CHUNK: Final = b"0\r\n\r\n"
"""What ends a chunked body without trailers (section 7.1)."""


def until_close(payload: bytes) -> bytes:
    """`payload` as it is: to an HTTP/1.0 client the end of the connection is the end of the body."""
    return payload


@dataclass(frozen=True, slots=True)
class Data:
    """A piece of a body; whether it begins and ends a chunk of the chunked coding as the sender cut it."""

    data: bytes
    chunk_start: bool = False
    chunk_end: bool = False


@dataclass(frozen=True, slots=True)
class End:
    """The end of a message, and the trailer fields that came after a chunked body."""

    trailers: Headers = field(default_factory=Headers)


class _Signal(enum.Enum):
    NEED_DATA = "feed more bytes first"
    CLOSED = "the peer ended the connection between two messages"


NEED_DATA: Final = _Signal.NEED_DATA
CLOSED: Final = _Signal.CLOSED
Closed: TypeAlias = Literal[_Signal.CLOSED]
BodyEvent: TypeAlias = Data | End | Literal[_Signal.NEED_DATA]
