"""What the bad clients send: bytes that are no request, and requests that are none of those that we want."""

from benchmarks.load import HOST

_HOST_LINE = f"Host: {HOST}\r\n".encode("ascii")
_NEXT = b"GET /smuggled HTTP/1.1\r\n" + _HOST_LINE + b"\r\n"
_CHUNKED = b"POST /digest HTTP/1.1\r\n" + _HOST_LINE + b"Transfer-Encoding: chunked\r\n\r\n"

GARBAGE = (
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64),  # a TLS client's first bytes
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"\x00\xff\xfe garbage \r\n\r\n",
    b"GET  /smuggled  HTTP/1.1\r\n\r\n",
    b"GET /smuggled\r\n\r\n",
    b"GET /smuggled HTTP/9.9\r\n" + _HOST_LINE + b"\r\n",
    b"GET /smuggled HTTP/1.1\r\n\r\n",  # no Host
    b"GET /smuggled HTTP/1.1\r\n" + 2 * _HOST_LINE + b"\r\n",
)
"""What is no request."""

_TWO_ENDS = (
    (b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n"),
    (b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", b"0\r\n\r\n"),
    (b"Content-Length: 0\r\nContent-Length: 44\r\n", b""),
    (b"Content-Length: 0, 44\r\n", b""),
    (b"Content-Length: +0\r\n", b""),
    (b"Content-Length: -1\r\n", b""),
    (b"Transfer-Encoding: xchunked\r\n", b"0\r\n\r\n"),
    (b"Transfer-Encoding: chunked, identity\r\n", b"0\r\n\r\n"),
    (b"Transfer-Encoding : chunked\r\n", b"0\r\n\r\n"),
    (b"Transfer-Encoding: \x0bchunked\r\n", b"0\r\n\r\n"),
    (b"X: y\r\n Content-Length: 44\r\nContent-Length : 0\r\n", b""),
)
SMUGGLING = (
    *(b"POST /smuggled HTTP/1.1\r\n" + _HOST_LINE + fields + b"\r\n" + body + _NEXT for fields, body in _TWO_ENDS),
    _CHUNKED + b"zz\r\n" + _NEXT,
    _CHUNKED + b"-1\r\n" + _NEXT,
    _CHUNKED + b"3\r\nabcd\r\n0\r\n\r\n" + _NEXT,
)
"""Requests whose end two parsers may see in two places, each with another request behind it."""

OVERSIZED = (
    b"GET /smuggled HTTP/1.1\r\n" + _HOST_LINE + b"X: " + b"x" * 40_000 + b"\r\n\r\n",
    b"GET /smuggled HTTP/1.1\r\n" + _HOST_LINE + b"".join(b"X-%d: x\r\n" % n for n in range(500)) + b"\r\n",
    b"GET /smuggled?" + b"x" * 40_000 + b" HTTP/1.1\r\n" + _HOST_LINE + b"\r\n",
)
"""Heads beyond the limits."""
