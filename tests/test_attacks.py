"""HTTP that cannot be smuggled: what attackers send, byte by byte, to a whole server over real sockets.

Behind each attack comes a second request, `GET /secret`, where a proxy would have seen none: its handler must not run.
Each attack is answered with the right status and the end of the connection, nothing is logged as an error, and the next
client is served as ever. What fuzzing (test_fuzz) has found stays here by name.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable
from typing import Any
from urllib.parse import urlencode

import h11
import pytest
from support import Failures, Peer, Served, Serving, in_background, request, settle

from rawstream import Event, Limits, Request, Response, Stream, Timeouts
from rawstream.errors import HTTPError, LocalError, MethodNotAllowed

SECRET = b"GET /secret HTTP/1.1\r\nHost: test\r\n\r\n"
GET = b"GET / HTTP/1.1\r\nHost: test\r\n"
POST = b"POST / HTTP/1.1\r\nHost: test\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"


def line(first: bytes) -> bytes:
    """A request that begins with this line."""
    return first + b"\r\nHost: test\r\n\r\n"


def with_host(host: bytes) -> bytes:
    return b"GET / HTTP/1.1\r\nHost: " + host + b"\r\n\r\n"


def length(value: bytes, body: bytes = b"hello") -> bytes:
    return POST + b"Content-Length: " + value + b"\r\n\r\n" + body


def coding(value: bytes) -> bytes:
    return POST + b"Transfer-Encoding: " + value + b"\r\n\r\n5\r\nhello\r\n0\r\n\r\n"


def size(value: bytes) -> bytes:
    """A chunked body that begins with this line for a size."""
    return CHUNKED + value + b"\r\nhello\r\n0\r\n\r\n"


HIDDEN = b"0\r\n\r\n" + SECRET
"""What one reader takes for the end of a chunked body, and another for a body of that length."""

Attacks = dict[str, tuple[bytes, int]]
"""What is sent, and the status that it is answered with."""

TWO_LENGTHS: Attacks = {
    "Content-Length before Transfer-Encoding": (
        POST + b"Content-Length: %d\r\nTransfer-Encoding: chunked\r\n\r\n" % len(HIDDEN) + HIDDEN,
        400,
    ),
    "Transfer-Encoding before Content-Length": (
        POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n" + HIDDEN,
        400,
    ),
    "both, the one far from the other, in other cases": (
        POST + b"transfer-encoding: Chunked\r\nX: y\r\nCONTENT-LENGTH: 5\r\n\r\n" + HIDDEN,
        400,
    ),
    "two Content-Lengths": (POST + b"Content-Length: 0\r\nContent-Length: 37\r\n\r\n", 400),
    "two equal Content-Lengths": (POST + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello", 400),
    "two Content-Lengths, one with a zero before it": (
        POST + b"Content-Length: 5\r\nContent-Length: 05\r\n\r\nhello",
        400,
    ),
    "two Content-Lengths on 1.0": (b"POST / HTTP/1.0\r\nContent-Length: 0\r\nContent-Length: 5\r\n\r\nhello", 400),
}  # fmt: skip

LENGTHS: Attacks = {
    **{
        f"Content-Length {value!r}": (length(value), 400)
        for value in [
            b"", b"5, 5", b"5,5", b"5, 6", b"5,", b",5", b"+5", b"-5", b"-0", b"0x5", b"5 5", b"5\t5", b"5;5", b"5.0",
            b"5e0", b"1_0", b"five", b'"5"', "٥".encode(), b"\xb2", b"5\x0b", b"\x0c5", b"5\0", b"5\r",
            b"1" + b"0" * 30,
        ]
    },
    "Content-Length folded": (POST + b"Content-Length: \r\n 5\r\n\r\nhello", 400),
    "Content-Length continued": (POST + b"Content-Length: 1\r\n 0\r\n\r\nhello", 400),
    "space before the colon of Content-Length": (POST + b"Content-Length : 5\r\n\r\nhello", 400),
    "a Content-Length that is not to be read": (POST + b"X: y\rContent-Length: 37\r\n\r\n", 400),
}  # fmt: skip

CODINGS: Attacks = {
    **{
        f"Transfer-Encoding {value!r}": (coding(value), 400)
        for value in [
            b"", b"xchunked", b"chunkedx", b"chunked, identity", b"identity", b"chunked, chunked", b"chunked;x",
            b"gzip", b"chunked;q=0.5", b'"chunked"', b"chunked,", b"\x0bchunked", b"chunked\x0c", b"chunked\0",
            b"\xa0chunked", b"chunked\r", b"\n chunked", b"c\xc4\xa7unked",
        ]
    },
    "identity, chunked": (coding(b"identity, chunked"), 501),
    "gzip, chunked": (coding(b"gzip, chunked"), 501),
    "an empty coding before chunked": (coding(b", chunked"), 501),
    "chunked in two fields": (POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n" + HIDDEN, 400),
    "chunked, and then identity in a field of its own": (
        POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n" + HIDDEN,
        400,
    ),
    "Transfer-Encoding on 1.0": (b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n" + HIDDEN, 400),
    "Transfer-Encoding on 1.0, with keep-alive": (
        b"POST / HTTP/1.0\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n" + HIDDEN,
        400,
    ),
    "Transfer-Encoding folded": (POST + b"Transfer-Encoding:\r\n chunked\r\n\r\n" + HIDDEN, 400),
    "space before the colon of Transfer-Encoding": (POST + b"Transfer-Encoding : chunked\r\n\r\n" + HIDDEN, 400),
    "a Transfer-Encoding behind a bare LF": (POST + b"X: y\nTransfer-Encoding: chunked\r\n\r\n" + HIDDEN, 400),
}  # fmt: skip

CHUNKS: Attacks = {
    **{
        f"chunk size {value[:20]!r}": (size(value), 400)
        for value in [
            b"", b"0x5", b"+5", b"-1", b"-0", b"5 ", b" 5", b"\t5", b"5\t", b"5\t;x", b"5 ;x", b"g", b"5g", b"5_0",
            b"5,5", b"5.", b"5\r", b"5\0", b"5\xa0", "５".encode(), b"f" * 17, b"0" * 16 + b"5", b"f" * 100,
            b"x" * 1000,
        ]
    },
    "a bare LF behind a chunk size": (CHUNKED + b"5\nhello\r\n0\r\n\r\n", 400),
    "a bare CR behind a chunk size": (CHUNKED + b"5\rhello\r\n0\r\n\r\n", 400),
    "a bare LF in a chunk extension": (size(b"5;a\nb"), 400),
    "a bare CR in a chunk extension": (size(b"5;a\rb"), 400),
    "NUL in a chunk extension": (size(b"5;\0"), 400),
    "a request in a chunk extension": (size(b"0;\n" + SECRET), 400),
    "an overlong chunk extension": (size(b"5;" + b"x" * 17_000), 431),
    "many chunk extensions": (CHUNKED + b"1;%b\r\nx\r\n" % (b"x" * 1000) * 20, 431),
    "a chunk followed by nothing": (CHUNKED + b"5\r\nhello0\r\n\r\n", 400),
    "a chunk followed by a bare LF": (CHUNKED + b"5\r\nhello\n0\r\n\r\n", 400),
    "a chunk followed by a bare CR": (CHUNKED + b"5\r\nhello\r0\r\n\r\n", 400),
    "a chunk followed by other bytes": (CHUNKED + b"5\r\nhelloXX0\r\n\r\n", 400),
    "a chunk longer than its size": (CHUNKED + b"4\r\nhello\r\n0\r\n\r\n", 400),
    "a chunk shorter than its size": (CHUNKED + b"6\r\nhello\r\n0\r\n\r\n", 400),
    "a bare LF behind the last chunk": (CHUNKED + b"5\r\nhello\r\n0\n\n", 400),
    "a bare LF at the end of the body": (CHUNKED + b"5\r\nhello\r\n0\r\n\n", 400),
}  # fmt: skip

TRAILERS: Attacks = {
    "Content-Length in trailers": (CHUNKED + b"0\r\nContent-Length: 37\r\n\r\n", 400),
    "Transfer-Encoding in trailers": (CHUNKED + b"0\r\nTransfer-Encoding: chunked\r\n\r\n" + HIDDEN, 400),
    "Host in trailers": (CHUNKED + b"0\r\nHost: evil\r\n\r\n", 400),
    "a folded trailer": (CHUNKED + b"0\r\nX: y\r\n z\r\n\r\n", 400),
    "a trailer with a space before its colon": (CHUNKED + b"0\r\nX : y\r\n\r\n", 400),
    "a trailer that ends with a bare LF": (CHUNKED + b"0\r\nX: y\n\r\n", 400),
    "a request instead of trailers": (CHUNKED + b"0\r\n" + SECRET, 400),
    "too many trailers": (CHUNKED + b"0\r\n" + b"X: y\r\n" * 101 + b"\r\n", 431),
    "overlong trailers": (CHUNKED + b"0\r\nX: " + b"y" * 17_000 + b"\r\n\r\n", 431),
}  # fmt: skip

LINES: Attacks = {
    "a folded field": (GET + b"X: y\r\n z\r\n\r\n", 400),
    "a field folded with a tab": (GET + b"X: y\r\n\tz\r\n\r\n", 400),
    "a line of nothing but a space": (GET + b" \r\n" + SECRET, 400),
    "a space before the first field": (b"GET / HTTP/1.1\r\n Host: test\r\n\r\n", 400),
    "a request folded into a field": (GET + b"X: y\r\n GET /secret HTTP/1.1\r\n\r\n", 400),
    "a space before the colon": (GET + b"X : y\r\n\r\n", 400),
    "a tab before the colon": (GET + b"X\t: y\r\n\r\n", 400),
    "a field without a name": (GET + b": y\r\n\r\n", 400),
    "a field without a colon": (GET + b"X\r\n\r\n", 400),
    "a name with a space": (GET + b"X Y: z\r\n\r\n", 400),
    "a name in Latin-1": (GET + b"X\xe9: y\r\n\r\n", 400),
    "a name with NUL": (GET + b"X\0: y\r\n\r\n", 400),
    "a bare LF for each line's end": (b"GET / HTTP/1.1\nHost: test\n\n", 400),
    "a bare LF after the request line": (b"GET / HTTP/1.1\nHost: test\r\n\r\n", 400),
    "a bare LF after a field": (GET + b"X: y\nZ: z\r\n\r\n", 400),
    "a bare LF for the empty line": (GET + b"\n", 400),
    "a bare LF before the empty line": (b"GET / HTTP/1.1\r\nHost: test\n\r\n", 400),
    "a bare LF that a fold makes up for": (b"GET / HTTP/1.1\r\nHost: test\nX: y\r\n z\r\n\r\n", 400),
    "a bare CR after the request line": (b"GET / HTTP/1.1\rHost: test\r\n\r\n", 400),
    "a bare CR in a value": (GET + b"X: y\rZ: z\r\n\r\n", 400),
    "a CR too many": (GET + b"X: y\r\r\n\r\n", 400),
    "a CR too many after the request line": (b"GET / HTTP/1.1\r\r\nHost: test\r\n\r\n", 400),
    "a bare LF before the request": (b"\n" + SECRET, 400),
    "a bare CR before the request": (b"\r" + SECRET, 400),
    "a space before the request": (b" " + SECRET, 400),
    "NUL before the request": (b"\0" + SECRET, 400),
    **{
        f"control character {code:#04x} in a value": (GET + b"X: a%cb\r\n\r\n" % code, 400)
        for code in (0x00, 0x01, 0x08, 0x0B, 0x0C, 0x0E, 0x1B, 0x1F, 0x7F)
    },
}  # fmt: skip

HOSTS: Attacks = {
    "no Host": (b"GET / HTTP/1.1\r\n\r\n", 400),
    "no Host, on a minor version to come": (b"GET / HTTP/1.2\r\n\r\n", 400),
    "two Hosts": (GET + b"Host: evil\r\n\r\n", 400),
    "two equal Hosts": (GET + b"host: test\r\n\r\n", 400),
    "two Hosts on 1.0": (b"GET / HTTP/1.0\r\nHost: test\r\nHost: evil\r\n\r\n", 400),
    "a folded Host": (b"GET / HTTP/1.1\r\nHost: test\r\n evil\r\n\r\n", 400),
    **{
        f"Host {host!r}": (with_host(host), 400)
        for host in [
            b"a b", b"user@test", b"user:password@test", b"test/secret", b"test?x", b"test#x", b"http://test",
            b"test:80:80", b"test:http", b"test:-1", b"test:123456", b":80", b"[::1", b"::1", b"[test]", b"[::1]x",
            b"test\\evil", b"<script>", b'"test"', b"t\xe9st", b"test%", b"test%zz", b"test\0", b"test,evil test",
        ]
    },
}  # fmt: skip

TARGETS: Attacks = {
    "authority-form": (line(b"GET test:80 HTTP/1.1"), 400),
    "CONNECT": (line(b"CONNECT test:443 HTTP/1.1"), 501),
    "CONNECT to a path": (line(b"CONNECT /secret HTTP/1.1"), 501),
    "an asterisk for a GET": (line(b"GET * HTTP/1.1"), 400),
    "a relative target": (line(b"GET secret HTTP/1.1"), 400),
    "a target that begins with a dot": (line(b"GET ../secret HTTP/1.1"), 400),
    "an absolute target with user information": (line(b"GET http://user@test/ HTTP/1.1"), 400),
    "an absolute target with user and password": (line(b"GET http://user:password@test/ HTTP/1.1"), 400),
    "an absolute target that hides its host": (line(b"GET http://test:80@evil/ HTTP/1.1"), 400),
    "an absolute target without host": (line(b"GET http:///secret HTTP/1.1"), 400),
    "an absolute target with nothing but a port": (line(b"GET http://:80/ HTTP/1.1"), 400),
    "an absolute target with a backslash": (line(b"GET http://test\\@evil/ HTTP/1.1"), 400),
    "an absolute target of another scheme": (line(b"GET ftp://test/ HTTP/1.1"), 400),
    "a target with a scheme only": (line(b"GET file:///etc/passwd HTTP/1.1"), 400),
    "an absolute target without Host": (b"GET http://test/ HTTP/1.1\r\n\r\n", 400),
    "a fragment": (line(b"GET /#secret HTTP/1.1"), 400),
    "a fragment in a query": (line(b"GET /?a#b HTTP/1.1"), 400),
    "a target in UTF-8": (line("GET /是 HTTP/1.1".encode()), 400),
    "a target in Latin-1": (line(b"GET /\xe9 HTTP/1.1"), 400),
    "a space in a target": (line(b"GET /a b HTTP/1.1"), 400),
    "a tab in a target": (line(b"GET /a\tb HTTP/1.1"), 400),
    "NUL in a target": (line(b"GET /\0 HTTP/1.1"), 400),
    "DEL in a target": (line(b"GET /\x7f HTTP/1.1"), 400),
    "a bare CR in a target": (line(b"GET /\rX HTTP/1.1"), 400),
    "a bare LF in a target": (line(b"GET /\nX: HTTP/1.1"), 400),
    "a target over the limit": (line(b"GET /" + b"x" * 8 * 1024 + b" HTTP/1.1"), 414),
    "a target over the head's limit": (line(b"GET /" + b"x" * 20_000 + b" HTTP/1.1"), 414),
    "an absolute target over the limit": (line(b"GET http://test/" + b"x" * 8 * 1024 + b" HTTP/1.1"), 414),
    "a query over the limit": (line(b"GET /?" + b"x" * 8 * 1024 + b" HTTP/1.1"), 414),
}  # fmt: skip

VERSIONS: Attacks = {
    "HTTP/2.0": (line(b"GET / HTTP/2.0"), 505),
    "HTTP/0.9 by its number": (line(b"GET / HTTP/0.9"), 505),
    "HTTP/9.9": (line(b"GET / HTTP/9.9"), 505),
    "HTTP/0.9": (b"GET /\r\n\r\n", 400),
    "HTTP/1.10": (line(b"GET / HTTP/1.10"), 400),
    "HTTP/1": (line(b"GET / HTTP/1"), 400),
    "HTTP/01.1": (line(b"GET / HTTP/01.1"), 400),
    "HTTP/1,1": (line(b"GET / HTTP/1,1"), 400),
    "HTTP/+1.1": (line(b"GET / HTTP/+1.1"), 400),
    "a version in lower case": (line(b"GET / http/1.1"), 400),
    "a version of another protocol": (line(b"GET / ICY/1.1"), 400),
    "a space behind the version": (line(b"GET / HTTP/1.1 "), 400),
    "two spaces": (line(b"GET  / HTTP/1.1"), 400),
    "tabs for spaces": (line(b"GET\t/\tHTTP/1.1"), 400),
    "a vertical tab for a space": (line(b"GET\x0b/ HTTP/1.1"), 400),
    "no target": (line(b"GET HTTP/1.1"), 400),
    "the preface of HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0", 505),
    "a TLS ClientHello": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)), 400),
    "the PROXY protocol": (b"PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r\n" + SECRET, 400),
    "the PROXY protocol, version 2": (b"\r\n\r\n\0\r\nQUIT\n" + bytes(20), 400),
    "SSH": (b"SSH-2.0-OpenSSH_9.6\r\n\r\n", 400),
    "a response": (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 400),
}  # fmt: skip

METHODS: Attacks = {
    "a method that is no token": (line(b"G(T / HTTP/1.1"), 400),
    "a method with a colon": (line(b"GET: / HTTP/1.1"), 400),
    "a method in Latin-1": (line(b"G\xc9T / HTTP/1.1"), 400),
    "no method": (line(b" / HTTP/1.1"), 400),
    "an overlong method": (line(b"G" * 33 + b" / HTTP/1.1"), 501),
    "a method over the head's limit": (line(b"G" * 17_000 + b" / HTTP/1.1"), 431),
}  # fmt: skip

SIZES: Attacks = {
    "a head over the limit": (GET + b"X: " + b"y" * 17_000 + b"\r\n\r\n", 431),
    "a name over the limit": (GET + b"X" * 17_000 + b": y\r\n\r\n", 431),
    "a head over the limit in many fields": (GET + b"X: %b\r\n" % (b"y" * 1000) * 17 + b"\r\n", 431),
    "too many fields": (GET + b"X: y\r\n" * 100 + b"\r\n", 431),
}  # fmt: skip


FAMILIES = {
    "two lengths for one body": TWO_LENGTHS,
    "lengths that are no number to everybody": LENGTHS,
    "transfer codings": CODINGS,
    "chunks": CHUNKS,
    "trailers": TRAILERS,
    "lines": LINES,
    "hosts": HOSTS,
    "targets": TARGETS,
    "other versions and protocols": VERSIONS,
    "methods": METHODS,
    "sizes": SIZES,
}


def url(target: bytes, seen: str) -> tuple[bytes, str]:
    return line(b"GET " + target + b" HTTP/1.1"), seen


TAKEN: dict[str, tuple[bytes, str]] = {
    # What looks like an attack and is none: the request, and what its handler sees: method, Host, path, query, body.
    "a body that is a request": (length(b"%d" % len(SECRET), SECRET), f"POST test / ? {SECRET.decode()}"),
    "a chunk that is a request": (
        CHUNKED + b"%x\r\n%b\r\n0\r\n\r\n" % (len(SECRET), SECRET),
        f"POST test / ? {SECRET.decode()}",
    ),
    "a body of a GET": (GET + b"Content-Length: 5\r\n\r\nhello", "GET test / ? hello"),
    "Chunked": (coding(b"Chunked"), "POST test / ? hello"),
    "white space around a length": (length(b"\t 5 \t"), "POST test / ? hello"),
    "zeros before a length": (length(b"0005"), "POST test / ? hello"),
    "zeros before a size": (size(b"0005"), "POST test / ? hello"),
    "a chunk extension": (size(b'5;a="b c";d=\xe9'), "POST test / ? hello"),
    "a field that is not quite Transfer-Encoding": (
        POST + b"Transfer_Encoding: chunked\r\nContent-Length: 5\r\n\r\nhello",
        "POST test / ? hello",
    ),
    "an empty line before the request": (b"\r\n\r\n" + GET + b"\r\n", "GET test / ? "),
    "a minor version to come": (line(b"GET / HTTP/1.9"), "GET test / ? "),
    "a lower-case method, which is another": (line(b"get / HTTP/1.1"), "get test / ? "),
    "an asterisk for OPTIONS": (line(b"OPTIONS * HTTP/1.1"), "OPTIONS test * ? "),
    "an absolute target": url(b"http://test/x?y", "GET test /x ?y "),
    "an absolute target with another host than Host": url(b"HTTP://Other:80/x", "GET Other:80 /x ? "),
    "an absolute target without path": url(b"http://other?y", "GET other / ?y "),
    "an escaped NUL": url(b"/%00", "GET test /\0 ? "),
    "an escaped line end": url(b"/%0d%0aX:%20y", "GET test /\r\nX: y ? "),
    "dots": url(b"/a/../../etc/passwd", "GET test /a/../../etc/passwd ? "),
    "escaped dots": url(b"/%2e%2e/%2e%2e/etc", "GET test /../../etc ? "),
    "two slashes": url(b"//evil/x", "GET test //evil/x ? "),
    "what is no UTF-8": url(b"/%ff", "GET test /\ufffd ? "),
    "a percent sign without digits": url(b"/%zz%", "GET test /%zz% ? "),
    "a URL in a path": url(b"/http://evil/", "GET test /http://evil/ ? "),
    "an offer of HTTP/2": (
        GET + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n",
        "GET test / ? ",
    ),
    "a Connection field that names others": (GET + b"Connection: Host, Content-Length\r\n\r\n", "GET test / ? "),
    "trailers": (CHUNKED + b"5\r\nhello\r\n0\r\nX: y\r\n\r\n", "POST test / ? hello"),
}


def answers(data: bytes) -> list[tuple[int, dict[str, str], bytes]]:
    """Status, fields and body of each response in `data`, which has nothing else in it: h11 says so."""
    found: list[tuple[int, dict[str, str], bytes]] = []
    while data:
        client = h11.Connection(h11.CLIENT)
        client.send(h11.Request(method="GET", target="/", headers=[("Host", "test")]))
        client.send(h11.EndOfMessage())
        client.receive_data(data)
        client.receive_data(b"")
        response, body = client.next_event(), b""
        assert type(response) is h11.Response
        while type(event := client.next_event()) is h11.Data:
            body += event.data
        assert type(event) is h11.EndOfMessage
        fields = {name.decode(): value.decode() for name, value in response.headers}
        assert len(fields) == len(response.headers)
        found.append((response.status_code, fields, body))
        data = client.trailing_data[0]
    return found


class Seen(list[str]):
    """A handler that answers everything, and what it has seen."""

    async def __call__(self, request: Request) -> Response:
        body = (await request.body()).decode()
        host = request.headers.get("host", "")
        self.append(f"{request.method} {host} {request.path} ?{request.head.query} {body}")
        return Response.text("served\n")


async def ended(peer: Peer) -> bytes:
    """All that the server sent until it ended the connection, in order."""
    data = await peer.rest()
    assert peer.ending == "end"
    peer.close()
    return data


async def assert_next_is_served(served: Served, seen: list[str]) -> None:
    next_ = await served.ask(request("/next", "Connection: close"))
    assert [status for status, _, _ in answers(await ended(next_))] == [200]
    assert seen == ["GET test /next ? "]
    seen.clear()


@pytest.mark.parametrize("attacks", FAMILIES.values(), ids=FAMILIES.keys())
async def test_attacks_are_refused_and_what_follows_them_is_no_request(attacks: Attacks, serving: Serving) -> None:
    seen = Seen()
    served = await serving(seen)
    for name, (data, status) in attacks.items():
        got = answers(await ended(await served.ask(data + SECRET)))
        assert [answer[0] for answer in got] == [status], name
        assert seen == [], name
        _, fields, body = got[0]
        assert fields["connection"] == "close", name
        assert fields["content-type"] == "text/plain; charset=utf-8", name
        # In plain words: neither the bytes that were sent nor how Python would write them.
        words = rb"%d [A-Z][A-Za-z0-9 ]+: [A-Za-z][A-Za-z0-9 .,:/'*-]+\n"
        assert re.fullmatch(words % status, body), f"{name}: {body!r}"
        await assert_next_is_served(served, seen)


async def test_what_only_looks_like_an_attack_is_served_and_so_is_what_follows_it(serving: Serving) -> None:
    seen = Seen()
    served = await serving(seen)
    for name, (data, expected) in TAKEN.items():
        got = answers(await ended(await served.ask(data + request("/after", "Connection: close"))))
        assert [answer[0] for answer in got] == [200, 200], name
        assert seen == [expected, "GET test /after ? "], name
        seen.clear()


async def test_a_body_that_no_handler_reads_is_no_request_either(serving: Serving) -> None:
    seen: list[str] = []

    async def handler(request: Request) -> Response:
        seen.append(request.path)
        return Response.text("unread\n")

    served = await serving(handler)
    for bad, status in (
        (b"5\r\nhelloXX0\r\n\r\n", 200),
        (b"ffffff\r\n", 200),
        (b"0\r\nContent-Length: 37\r\n\r\n", 400),  # known to be no body before its handler could begin
        (b"x\r\n", 400),
    ):
        got = answers(await ended(await served.ask(CHUNKED + bad + SECRET)))
        assert [(answer[0], answer[1].get("connection")) for answer in got] == [(status, "close")]
    assert seen == ["/"] * 2


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (CHUNKED + b"x\r\n" + SECRET, 400),
        (CHUNKED + b"-1\r\nhello" + SECRET, 400),
        (CHUNKED + b" 5\r\nhello\r\n0\r\n\r\n" + SECRET, 400),
        (length(b"11", b""), 413),
        (length(b"11", b"hello"), 413),
        (length(b"9" * 20, b"hello" + SECRET), 413),
        (POST + b"Expect: 100-continue\r\nContent-Length: 11\r\n\r\n", 413),
    ],
)
async def test_what_is_known_to_be_no_body_is_refused_before_a_handler_begins(
    data: bytes, status: int, serving: Serving
) -> None:
    """Also where the handler would not read it: what it did would stand, and its client be told that it failed."""
    begun: list[str] = []

    async def handler(request: Request) -> Response:
        begun.append(request.path)
        return Response.text("unread\n")

    served = await serving(handler, limits=Limits(body=10))
    got = answers(await ended(await served.ask(data)))
    assert [(answer[0], answer[1].get("connection")) for answer in got] == [(status, "close")]
    assert begun == []
    got = answers(await ended(await served.ask(request("/", "Connection: close", method="POST", body=b"x" * 10))))
    assert [answer[0] for answer in got] == [200]


async def test_a_request_is_refused_although_its_connection_has_served_others(serving: Serving) -> None:
    seen = Seen()
    served = await serving(seen)
    for data, status in (TWO_LENGTHS["two equal Content-Lengths"], LINES["a bare LF after a field"]):
        got = answers(await ended(await served.ask(request("/1") + request("/2") + data + SECRET)))
        assert [answer[0] for answer in got] == [200, 200, status]
    assert seen == ["GET test /1 ? ", "GET test /2 ? "] * 2


async def test_limits_of_ones_own_are_kept(serving: Serving) -> None:
    seen = Seen()
    served = await serving(seen, limits=Limits(head=200, headers=3, target=20, body=10))
    for data, status in (
        (line(b"GET /" + b"x" * 20 + b" HTTP/1.1"), 414),
        (GET + b"X: " + b"y" * 200 + b"\r\n\r\n", 431),
        (GET + b"X: y\r\n" * 3 + b"\r\n", 431),
        (length(b"99999999999999999999"), 413),
        (CHUNKED + b"ffffffffffffffff\r\nhello, all!", 413),
    ):
        got = answers(await ended(await served.ask(data + SECRET)))
        assert [(answer[0], answer[1]["connection"]) for answer in got] == [(status, "close")]
    assert seen == []
    got = answers(await ended(await served.ask(line(b"GET /" + b"x" * 19 + b" HTTP/1.0"))))
    assert [answer[0] for answer in got] == [200]


async def test_a_refusal_is_read_by_who_still_sends(serving: Serving) -> None:
    """Closing with bytes unread would make the kernel reset the connection, and drop the refusal."""
    served = await serving(Seen())
    peer = await served.ask(b"GET / HTTP/1.1\r\n\r\n" + b"x" * 100_000)
    await peer.send(b"x" * 100_000)
    assert [answer[0] for answer in answers(await ended(peer))] == [400]


@pytest.mark.parametrize("requests", [1, 1000])
async def test_who_floods_with_requests_gets_to_read_the_answers_that_were_given(
    requests: int, serving: Serving
) -> None:
    """What is more than is held of requests, behind one under way, is dropped, and the connection then ends well.

    So it does where it takes no more of them.
    """
    flood = request("/flood") * 200_000
    asked: list[str] = []

    async def handler(request: Request) -> Response:
        asked.append(request.path)
        sending.append(in_background(peer.send(flood)))
        await settle()  # more of it has come than is held, and the rest is on its way
        return Response.text("x" * 1000)

    served = await serving(handler, limits=Limits(requests=requests))
    for _ in range(3):
        sending: list[asyncio.Task[None]] = []
        peer = await served.connect()
        await peer.send(request("/"))
        data = await peer.rest()
        sending[0].cancel()
        with contextlib.suppress(asyncio.CancelledError, OSError):
            await sending[0]
        peer.close()
        assert peer.ending == "end"
        assert [(status, len(body)) for status, _, body in answers(data)] == [(200, 1000)]
    assert asked == ["/"] * 3


async def test_a_request_whose_rest_was_dropped_is_not_called_malformed(serving: Serving) -> None:
    """It is we who have lost it: the connection ends, as it does for those that were dropped as a whole."""

    async def handler(request_: Request) -> Response:
        await peer.send(b"P/1.1\r\nHost: test\r\n\r\n" + request("/flood") * 1000)
        await settle()  # more of it has come than is held
        return Response(204)

    served = await serving(handler)
    peer = await served.connect()
    await peer.send(request("/") + b"GET / HTT")
    assert [answer[0] for answer in answers(await ended(peer))] == [204]


# -- what a handler sends on -------------------------------------------------------------------------------------------

LINE_END = "a\r\nX-Injected: 1\r\n\r\nHTTP/1.1 200 OK"


async def items(*values: Any) -> AsyncIterator[Any]:
    for value in values:
        yield value


def raising(error: Exception) -> Any:
    raise error


UNSENT: dict[str, Callable[[str], Any]] = {
    "a field's value": lambda text: Response(headers=[("X", text)]),
    "a field's name": lambda text: Response(headers=[(text, "y")]),
    "a mapping's value": lambda text: Response(headers={"X": text}),
    "a bare LF in a value": lambda text: Response(headers=[("X", text.replace("\r", ""))]),
    "a bare CR in a value": lambda text: Response(headers=[("X", text.replace("\n", ""))]),
    "NUL in a value": lambda text: Response(headers=[("X", "a\0b")]),
    "an escape sequence in a value": lambda text: Response(headers=[("X", "\x1b[2J")]),
    "a line end that is none in Latin-1": lambda text: Response(headers=[("X", "a\u560d\u560aX-Injected: 1")]),
    "where a redirection goes": lambda text: Response(303, [("Location", f"/{text}")]),
    "a cookie": lambda text: Response(headers=[("Set-Cookie", f"a={text}")]),
    "Content-Type of a text": lambda text: Response.text("x", headers=[("Content-Type", text)]),
    "Content-Type of a JSON value": lambda text: Response.json(1, headers=[("Content-Type", text)]),
    "a field of a stream": lambda text: Stream(items(1), headers=[("X", text)]),
    "Content-Type of a stream": lambda text: Stream(items(1), headers=[("Content-Type", text)]),
    "a field of a failure": lambda text: raising(HTTPError(403, "no", [("X", text)])),
    "a method that is allowed": lambda text: raising(MethodNotAllowed(["GET", text])),
    "the id of an event": lambda text: Stream(items(Event("x", id=text)), format="sse"),
    "the type of an event": lambda text: Stream(items(Event("x", event=text)), format="sse"),
    "a length": lambda text: Response(headers=[("Content-Length", "1000")], body=b"x"),
    "a length of a stream": lambda text: Stream(items(1), headers=[("Content-Length", "1000")]),
    "a length where no body is": lambda text: Response(204, [("Content-Length", "1000")]),
    "a coding": lambda text: Response(headers=[("Transfer-Encoding", "chunked")], body=b"0\r\n\r\n" + SECRET),
    "a coding of a stream": lambda text: Stream(items(1), headers=[("Transfer-Encoding", "identity")]),
    "a coding where no body is": lambda text: Response(204, [("Transfer-Encoding", "chunked")]),
}


async def test_a_handler_cannot_be_made_to_send_another_head(serving: Serving, failures: Failures) -> None:
    async def handler(request: Request) -> Any:
        return Response(204) if request.path == "/next" else UNSENT[request.query["name"]](request.query["text"])

    served = await serving(handler)
    for name in UNSENT:
        query = urlencode({"name": name, "text": LINE_END})
        data = await ended(await served.ask(request(f"/?{query}") + request("/next", "Connection: close")))
        got = answers(data)
        assert [answer[0] for answer in got] == [500, 204], name
        assert b"X-Injected" not in data, name
        assert got[0][2] == b"500 Internal Server Error\n", name
        assert isinstance(failures.take(), LocalError), name


async def test_the_text_of_a_failure_stays_in_its_body(serving: Serving) -> None:
    async def handler(request: Request) -> Response:
        raise HTTPError(403, LINE_END)

    served = await serving(handler)
    ((status, fields, body),) = answers(await ended(await served.ask(request("/", "Connection: close"))))
    assert (status, body) == (403, f"403 Forbidden: {LINE_END}".encode("unicode_escape") + b"\n")
    assert "x-injected" not in fields
    accepts = request("/", "Accept: application/json", "Connection: close")
    ((status, fields, body),) = answers(await ended(await served.ask(accepts)))
    assert status == 403
    assert "x-injected" not in fields
    assert b"\r" not in body


async def test_data_of_an_event_cannot_begin_another_event(serving: Serving) -> None:
    async def handler(request: Request) -> Stream:
        return Stream(items(Event("a\n\nevent: evil\rdata: b\r\nid: 1")), format="sse")

    served = await serving(handler)
    data = await ended(await served.ask(request("/", version="1.0")))
    lines = data.partition(b"\r\n\r\n")[2].partition(b"\n\n")[0].split(b"\n")
    assert lines == [b"data: a", b"data: ", b"data: event: evil", b"data: data: b", b"data: id: 1"]


@pytest.mark.parametrize(
    "origin", ["https://app.example\x00", "https://app.example\x01", "https://app.example\r", "https://app.example\nX"]
)
async def test_an_origin_with_a_control_character_is_not_echoed(origin: str, serving: Serving) -> None:
    served = await serving(Seen(), allowed_origins=["https://app.example"])
    data = await ended(await served.ask(request("/", f"Origin: {origin}")))
    assert [status for status, _, _ in answers(data)] == [400]
    assert b"app.example" not in data


@pytest.mark.parametrize("origin", ["https://app.example, x", "https://app.example\xe9", "https://app.example ", "x"])
async def test_only_a_listed_origin_is_echoed(origin: str, serving: Serving) -> None:
    served = await serving(Seen(), allowed_origins=["https://app.example"])
    data = await ended(await served.ask(request("/", f"Origin: {origin}", "Connection: close")))
    ((status, fields, _),) = answers(data)
    assert status == 200
    allowed = fields.get("access-control-allow-origin")
    assert allowed == ("https://app.example" if origin.strip() == "https://app.example" else None)


async def test_the_id_of_a_request_is_ours(serving: Serving) -> None:
    async def handler(request: Request) -> Response:
        raise HTTPError(403)

    served = await serving(handler, timeouts=Timeouts(grace=60))
    ask = request("/", "X-Request-Id: of-the-client", "Connection: close")
    assert b"of-the-client" not in await ended(await served.ask(ask))
