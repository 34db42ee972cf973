"""A response as it comes off the wire: its head, and what each read from the socket brought of its body. No I/O.

h11 reads the head and says how the body is framed. Of a chunked body it reads what is not simply the next chunk: the
last one, the trailers, whatever is wrong, and the end of the connection. The chunks before, hundreds of thousands
perhaps, are taken off by `Dechunker`, at a fifth of the price; a test holds what it makes of them equal to what h11
makes of them.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from .errors import BadResponse, FetchError, HeadTooLarge, IncompleteResponse, RemoteError
from .fields import Headers
from .framing import Data, End
from .messages import ResponseHead
from .wire import ClientWire

_HEAD_END = re.compile(rb"\n\r?\n")  # as h11 sees it
# RFC 9112 section 7.1. As h11 does, we bear white space behind the size: some servers pad it.
_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]*(?:;[^\r\n]*)?\r\n")
_TLS_ALERT = b"\x15"  # RFC 8446 section 5.1: so begins what a server says in TLS to a request that is none
_LONGEST_LINE = 4096  # bytes of a size line with its extensions; of a longer one h11 says what it thinks


class Arrival(NamedTuple):
    """What one read from the socket brought of a response's body.

    time: when it was read, by `time.monotonic()`. received: bytes, with the framing. pieces: bytes of the body, as they
        were sent (a Content-Encoding is not undone).
    chunked: each piece is a chunk as the server cut it (RFC 9112 section 7.1), or a part of one: `continues` tells that
        the first piece goes on with a chunk that began earlier, `unfinished` that more of the last piece's is to come.

    Of what was read together with the response's head, it tells what came behind that.
    """

    time: float
    received: int
    pieces: list[bytes]
    chunked: bool = False
    continues: bool = False
    unfinished: bool = False


class Dechunker:
    """Takes the chunks off a chunked body, up to the first line that does not simply begin another one."""

    __slots__ = ("_held", "_in_footer", "_left", "continues", "fault", "rest")

    def __init__(self) -> None:
        self._left = 0  # bytes of the chunk under way that are to come
        self._in_footer = False  # the CR LF behind a chunk is to come
        self._held = b""  # what came of that, or of a size line
        self.continues = False
        """Some of the chunk under way was given out."""
        self.rest: bytes | None = None
        """What is for h11 to read: the last chunk and all that follows, or a line that is none of ours."""
        self.fault: FetchError | None = None
        """What is wrong where `feed` stopped."""

    def feed(self, data: bytes) -> list[bytes]:
        """What there is of chunks in the next bytes, each apart. Nothing may be fed after a `rest` or a `fault`."""
        pieces: list[bytes] = []
        data, self._held = self._held + data, b""
        place = 0
        if self._left:
            place = self._part(data, 0, pieces)
        if self._in_footer:
            place = self._footer(data, place)
        if not self._in_footer and not self._left:
            place = self._whole_chunks(data, place, pieces)
        return pieces

    def _part(self, data: bytes, place: int, pieces: list[bytes]) -> int:
        """The next part of the chunk under way begins at `place`; returns where it ends."""
        piece = data[place : place + self._left]
        self._left -= len(piece)
        self.continues = bool(self._left) and (self.continues or bool(piece))
        self._in_footer = not self._left
        if piece:
            pieces.append(piece)
        return place + len(piece)

    def _footer(self, data: bytes, place: int) -> int:
        """The end of the line behind a chunk; returns where it ends."""
        found = data[place : place + 2]
        self._in_footer = found != b"\r\n"
        if self._in_footer:
            if b"\r\n".startswith(found):
                self._held = found
            else:
                self.fault = BadResponse("a chunk is as long as its size says")
        return place + 2

    def _whole_chunks(self, data: bytes, place: int, pieces: list[bytes]) -> int:
        size_line = _SIZE_LINE.match
        while match := size_line(data, place):
            start = match.end()
            end = start + int(match[1], 16)
            if start == end:
                break  # the last chunk
            place = end + 2
            if data[end:place] == b"\r\n":  # all of it is here: most chunks are no more than this loop
                pieces.append(data[start:end])
                continue
            self._left = end - start
            place = self._part(data, start, pieces)
            return self._footer(data, place) if self._in_footer else place
        line = data[place:]
        if match is None and b"\n" not in line and len(line) < _LONGEST_LINE:
            self._held = line
        else:
            self.rest = line
        return place


class Incoming:
    """The response to the request that `wire` has sent. max_head: bytes that its head may have."""

    def __init__(self, wire: ClientWire, max_head: int = 64 * 1024) -> None:
        self._wire = wire
        self._max_head = max_head
        self._size = 0  # bytes of the head so far
        self._tail = b""  # the last bytes of what came of a head
        self._chunks: Dechunker | None = None
        self._chunked = False
        self._over = False  # the peer will send no more
        self.ended = False
        """All of the response is here."""
        self.trailers = Headers()
        """The fields that came after a chunked body."""
        self.fault: FetchError | None = None
        """What is wrong behind all that was given out: nothing more will come."""

    def head(self, data: bytes) -> tuple[ResponseHead, bytes] | None:
        """The response's head and what came behind it, once it is here: `data` are the next bytes, b"" their end.

        Raises BadResponse, or IncompleteResponse.
        """
        self._over = not data
        if not self._size and data.startswith(_TLS_ALERT):
            raise BadResponse("the server answered with no HTTP (it speaks TLS, perhaps: https://)")
        while True:
            before, data, whole = self._up_to_head_end(data)
            self._size += len(before)
            if self._size > self._max_head:
                raise BadResponse(f"the response's head has more than {self._max_head} bytes")
            try:
                self._wire.feed(before)
                event = self._wire.receive()
            except RemoteError as error:
                raise self._more_exactly(error) from error.__cause__
            if isinstance(event, ResponseHead):
                self._begin(event)
                return event, data
            if not whole:
                return None
            self._size = 0  # it was the head of an informational response
            if not data:
                return None

    def _up_to_head_end(self, data: bytes) -> tuple[bytes, bytes, bool]:
        """`data` up to the end of a head, what comes behind, and whether there is an end."""
        match = _HEAD_END.search(self._tail + data)
        if match is None:
            self._tail = (self._tail + data)[-2:]
            return data, b"", False
        place = match.end() - len(self._tail)
        self._tail = b""
        return data[:place], data[place:], True

    def _begin(self, head: ResponseHead) -> None:
        self._drain([])  # there may be no body
        if not self.ended and "transfer-encoding" in head.headers:  # h11 knows no other than chunked
            self._chunks = Dechunker()
            self._chunked = True

    def arrival(self, time: float, data: bytes) -> Arrival:
        """What these next bytes bring of the body; b"" is the end of the connection.

        Raises BadResponse, or IncompleteResponse; where some of the body came before, this is the `fault` then.
        """
        pieces: list[bytes] = []
        continues = unfinished = False
        if (chunks := self._chunks) is not None:
            continues = chunks.continues
            pieces = chunks.feed(data)
            unfinished = chunks.continues
            self.fault = chunks.fault
            rest = chunks.rest if data else b""
        else:
            rest = data
        if rest is not None:
            self._chunks = None
            self._over = not data
            self._wire.feed(rest)
            self._drain(pieces)
        if self.fault is not None and not pieces:
            raise self.fault
        return Arrival(time, len(data), pieces, self._chunked, continues, unfinished)

    def _drain(self, pieces: list[bytes]) -> None:
        """Take off the wire what there is of the body."""
        try:
            while isinstance(event := self._wire.receive(), Data):
                pieces.append(event.data)
        except RemoteError as error:
            self.fault = self._more_exactly(error)
            self.fault.__cause__ = error.__cause__
            return
        if isinstance(event, End):
            self.ended, self.trailers = True, event.trailers

    def _more_exactly(self, error: RemoteError) -> FetchError:
        if self._over and not isinstance(error, HeadTooLarge):
            return IncompleteResponse("the connection ended before the response did")
        return BadResponse(str(error))
