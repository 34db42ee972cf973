"""A real nginx before a real server, with the configuration that docs/proxies.md gives."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import trustme
from support import LAST_CHUNK, Clock, Failures, Peer, Served, Serving, Steps, TlsPeer, absent, get, request, until

from rawstream import Request, Response, Stream, Timeouts

PAGE = Path(__file__).parent.parent / "docs" / "proxies.md"
SSE = "text/event-stream"


def shown(language: str) -> list[str]:
    """What the page shows in this language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)


SITE, HTTP_2 = shown("nginx")
MAIN = """
daemon off;
worker_processes 1;
pid {directory}/nginx.pid;
error_log {directory}/error.log info;
{user}
events {{}}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    {site}
}}
"""


def replaced(text: str, *changes: tuple[str, str]) -> str:
    """The text with each of these changed, which has to stand there once."""
    for old, new in changes:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


@contextlib.contextmanager
def nginx(behind: int, directory: Path, site: str = SITE) -> Iterator[int]:
    """A running nginx, the port of which is given, before a server on the port `behind`.

    On a build machine its absence is a failure, elsewhere a reason to skip.
    """
    program = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if program is None:
        absent("nginx is not installed: `make system-packages` installs it")
    # A listening socket of ours, which nginx inherits as it does from the nginx that it replaces: the port is free,
    # and who connects before nginx is up waits for it.
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        site = replaced(site, ("server 127.0.0.1:8000;", f"server 127.0.0.1:{behind};"))
        site, listens = re.subn(r"\blisten \d+", f"listen 127.0.0.1:{port}", site)
        assert listens == 1
        user = "user root;" if os.geteuid() == 0 else ""
        (directory / "nginx.conf").write_text(MAIN.format(directory=directory, user=user, site=site))
        log = directory / "error.log"
        process = subprocess.Popen(
            [program, "-p", str(directory), "-c", str(directory / "nginx.conf"), "-e", str(log)],
            stdin=subprocess.DEVNULL,
            env={**os.environ, "NGINX": f"{listening.fileno()};"},
            pass_fds=[listening.fileno()],
        )
    try:
        yield port
    finally:
        process.terminate()
        status = process.wait(10)
    assert status == 0, log.read_text()


class Proxy:
    """A running nginx, and its clients."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.peers: list[Peer] = []

    async def ask(self, data: bytes, source: str = "127.0.0.1") -> Peer:
        """A client of it, at this address, that has sent `data`."""
        peer = Peer(await self._connected(source))
        self.peers.append(peer)
        await peer.send(data)
        return peer

    async def ask_tls(self, context: ssl.SSLContext, data: bytes) -> TlsPeer:
        """The same under TLS."""
        peer = TlsPeer(await self._connected("127.0.0.1"), context)
        self.peers.append(peer)
        await peer.handshake()
        await peer.send(data)
        return peer

    async def _connected(self, source: str) -> socket.socket:
        sock = socket.socket()
        try:
            sock.setblocking(False)
            sock.bind((source, 0))
            await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", self.port))
        except BaseException:
            sock.close()
            raise
        return sock

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: object) -> None:
        for peer in self.peers:
            peer.close()


Before = Callable[..., contextlib.AbstractContextManager[Proxy]]


@pytest.fixture
def before(tmp_path: Path) -> Before:
    """`with before(served) as proxy:` nginx stands before a server."""

    @contextlib.contextmanager
    def start(served: Served, site: str = SITE) -> Iterator[Proxy]:
        with nginx(served.server.addresses[0][1], tmp_path, site) as port, Proxy(port) as proxy:
            yield proxy

    return start


class Waiting:
    """A handler whose streams give "first", wait to be let go, and give "last"."""

    def __init__(self) -> None:
        self.steps = Steps()
        self.go = asyncio.Event()
        self.error: Exception | None = None

    async def items(self) -> AsyncIterator[str]:
        try:
            yield "first"
            self.steps("waits")
            await self.go.wait()
            if self.error is not None:
                raise self.error
            yield "last"
        finally:
            self.steps("finally")

    async def __call__(self, request: Request) -> Stream:
        headers = [("X-Accel-Buffering", "no")] if request.path == "/released" else []
        return Stream(self.items(), headers=headers)


# -- buffering ---------------------------------------------------------------------------------------------------------


async def text_until(peer: Peer, mark: bytes) -> bytes:
    """The text of a stream in chunks, decoded if nginx has compressed it, until `mark` has come."""
    decoder = zlib.decompressobj(31) if b"\r\nContent-Encoding: gzip\r\n" in await peer.head() else None
    text = b""
    while mark not in text:
        size = int(await peer.until(b"\r\n"), 16)
        chunk = await peer.until(b"\r\n")
        while len(chunk) < size + 2:
            chunk += await peer.until(b"\r\n")
        text += decoder.decompress(chunk[:-2]) if decoder else chunk[:-2]
    return text


def http_1_0() -> str:
    return replaced(SITE, ("proxy_http_version 1.1;", "proxy_http_version 1.0;"))


def gzip() -> str:
    directives = "gzip on; gzip_types text/plain text/event-stream; gzip_proxied any; gzip_min_length 0;"
    return replaced(SITE, ("location / {", directives + " location / {"))


@pytest.mark.parametrize("site", [http_1_0(), gzip()], ids=["HTTP/1.0", "gzip"])
async def test_nginx_holds_a_stream_back_unless_it_is_told_not_to(serving: Serving, before: Before, site: str) -> None:
    """nginx has one worker, and had the first stream's item before it was asked for the second stream at all."""
    handler = Waiting()
    with before(await serving(handler), site) as proxy:
        held = await proxy.ask(get("/held", "text/plain", "Accept-Encoding: gzip"))
        await handler.steps.reach("waits")
        released = await proxy.ask(get("/released", "text/plain", "Accept-Encoding: gzip"))
        assert await text_until(released, b"first") == b"first"
        assert held.here() == b""
        handler.go.set()
        assert await text_until(held, b"last") == b"firstlast"


async def test_by_http_1_1_and_uncompressed_nginx_gathers_only_for_a_reader_that_is_behind(
    serving: Serving, before: Before
) -> None:
    handler = Waiting()
    with before(await serving(handler)) as proxy:
        peer = await proxy.ask(get("/held", "text/plain"))
        assert await text_until(peer, b"first") == b"first"
        assert "finally" not in handler.steps.done


@pytest.mark.parametrize("site", [SITE, http_1_0(), gzip()], ids=["HTTP/1.1", "HTTP/1.0", "gzip"])
async def test_events_tell_it_by_themselves(serving: Serving, before: Before, site: str) -> None:
    """gzip does not look at no-transform, but flushes what is not buffered."""
    handler = Waiting()
    with before(await serving(handler), site) as proxy:
        peer = await proxy.ask(get("/", SSE, "Accept-Encoding: gzip"))
        assert await text_until(peer, b"\n\n") == b"data: first\n\n"
        assert "finally" not in handler.steps.done


async def test_an_upload_is_not_gathered(serving: Serving, before: Before) -> None:
    steps = Steps()

    async def handler(request: Request) -> Response:
        async for piece in request.stream():
            steps(piece)
        return Response.text("done")

    with before(await serving(handler)) as proxy:
        peer = await proxy.ask(request("/", "Content-Length: 10", method="POST") + b"first")
        await steps.reach(b"first")
        await peer.send(b"-last")
        assert (await peer.response())[1] == b"done"
        assert steps.done == [b"first", b"-last"]


# -- connections to us -------------------------------------------------------------------------------------------------


async def test_nginx_keeps_its_connections_to_us(serving: Serving, before: Before) -> None:
    ports = set()

    async def handler(request: Request) -> Response | Stream:
        assert request.client is not None
        ports.add(request.client[1])
        return Response.text("ok") if request.path == "/short" else Stream(items(), format="sse")

    async def items() -> AsyncIterator[str]:
        yield "x"

    served = await serving(handler)
    with before(served) as proxy:
        for target in ("/short", "/stream", "/short"):
            peer = await proxy.ask(get(target, None, "Connection: close"))
            assert (await peer.head()).startswith(b"HTTP/1.1 200 ")
            await peer.rest()
            assert served.server.connections == 1
    assert len(ports) == 1


async def test_it_is_nginx_who_gives_up_an_idle_connection(serving: Serving, before: Before, clock: Clock) -> None:
    """Our time stands still here: so it cannot have been us. In the page it is 60 s against our 75."""

    async def handler(request: Request) -> Response:
        return Response.text("ok")

    served = await serving(handler)
    with before(served, replaced(SITE, ("keepalive_timeout 60s", "keepalive_timeout 100ms"))) as proxy:
        peer = await proxy.ask(get())
        await peer.response()
        assert served.server.connections == 1
        await until(lambda: served.server.connections == 0)


def seconds(directive: str) -> float:
    """What the page sets this directive to."""
    match = re.search(rf"^ *{directive} (\d+)s;$", SITE, re.MULTILINE)
    assert match is not None, directive
    return float(match[1])


def test_the_page_lets_nginx_give_up_first_and_never_lose_patience() -> None:
    assert seconds("keepalive_timeout") < Timeouts().keep_alive
    heartbeat = inspect.signature(Stream).parameters["heartbeat"].default
    assert heartbeat + Timeouts().write_stall < seconds("proxy_read_timeout")


@pytest.mark.parametrize("site", [SITE, http_1_0()], ids=["HTTP/1.1", "HTTP/1.0"])
async def test_a_stream_comes_item_by_item_and_to_its_end(serving: Serving, before: Before, site: str) -> None:
    """Of HTTP/1.0 nginx knows the end by the close."""
    versions = []
    handler = Waiting()

    async def noting(request: Request) -> Stream:
        versions.append(request.http_version)
        return await handler(request)

    with before(await serving(noting), site) as proxy:
        peer = await proxy.ask(get("/", SSE))
        await peer.until(b"data: first\n\n\r\n")
        handler.go.set()
        assert b"event: stream-end\n" in await peer.until(LAST_CHUNK)
        assert versions == ["1.0" if "1.0" in site else "1.1"]


@pytest.mark.parametrize("site", [SITE, http_1_0()], ids=["HTTP/1.1", "HTTP/1.0"])
async def test_a_broken_stream_is_broken_behind_nginx_too(
    serving: Serving, before: Before, failures: Failures, site: str
) -> None:
    """Of HTTP/1.0 only a reset tells nginx so, since a close is a proper end."""
    handler = Waiting()
    handler.error = ConnectionError("the upstream is gone")
    with before(await serving(handler, timeouts=Timeouts(linger=0)), site) as proxy:
        peer = await proxy.ask(get("/", SSE))
        await peer.until(b"data: first\n\n\r\n")
        handler.go.set()
        rest = await peer.rest()
        assert peer.ending
        assert not rest.endswith(LAST_CHUNK)
        assert b"stream-end\n" not in rest
    assert failures.take() is handler.error


# -- who is there ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("leave", [Peer.reset, Peer.close])
@pytest.mark.parametrize("target", ["/held", "/released"])
async def test_a_client_that_leaves_nginx_closes_the_generator(
    serving: Serving, before: Before, target: str, leave: Callable[[Peer], None]
) -> None:
    handler = Waiting()
    served = await serving(handler)
    with before(served) as proxy:
        peer = await proxy.ask(get(target, "text/plain"))
        await handler.steps.reach("waits")
        leave(peer)
        await handler.steps.reach("waits", "finally")
        await until(lambda: served.server.connections == 0)


async def who(request: Request) -> Response:
    """Who asks, as far as we know."""
    assert request.client is not None
    return Response.text(f"{request.scheme}://{request.headers['host']} from {request.client[0]}")


async def test_the_client_is_the_one_that_a_trusted_proxy_names(serving: Serving, before: Before) -> None:
    served = await serving(who, trusted_proxies=("127.0.0.1",))
    with before(served) as proxy:
        peer = await proxy.ask(get(), source="127.0.0.2")
        assert (await peer.response())[1] == b"http://test from 127.0.0.2"
        forged = await proxy.ask(get("/", None, "X-Forwarded-For: 8.8.8.8"), source="127.0.0.2")
        assert (await forged.response())[1] == b"http://test from 127.0.0.2"


async def test_nobody_is_trusted_unasked(serving: Serving, before: Before) -> None:
    with before(await serving(who), replaced(SITE, ("$scheme", "https"))) as proxy:
        peer = await proxy.ask(get(), source="127.0.0.2")
        assert (await peer.response())[1] == b"http://test from 127.0.0.1"


def with_certificate(authority: trustme.CA, directory: Path) -> str:
    """The configuration for HTTP/2, with a certificate that is written to `directory`."""
    certificate = authority.issue_cert("127.0.0.1")
    key, chain = directory / "key.pem", directory / "chain.pem"
    certificate.private_key_pem.write_to_path(str(key))
    chain.write_bytes(b"".join(blob.bytes() for blob in certificate.cert_chain_pems))
    tls = replaced(HTTP_2, ("/etc/ssl/app.example/key.pem", str(key)), ("/etc/ssl/app.example/chain.pem", str(chain)))
    return replaced(SITE, ("    listen 80;\n", tls))


async def test_the_scheme_is_the_one_that_a_trusted_proxy_was_asked_by(
    serving: Serving, before: Before, tmp_path: Path
) -> None:
    authority = trustme.CA()
    context = ssl.create_default_context()
    authority.configure_trust(context)
    served = await serving(who, trusted_proxies=("127.0.0.1",))
    with before(served, with_certificate(authority, tmp_path)) as proxy:
        peer = await proxy.ask_tls(context, get())
        assert (await peer.response())[1] == b"https://test from 127.0.0.1"


async def test_the_host_is_the_one_that_the_client_asked_for(serving: Serving, before: Before) -> None:
    served = await serving(who, allowed_hosts=("app.example",))
    with before(served) as proxy:
        peer = await proxy.ask(b"GET / HTTP/1.1\r\nHost: app.example\r\n\r\n")
        assert (await peer.response())[1] == b"http://app.example from 127.0.0.1"
        stranger = await proxy.ask(b"GET / HTTP/1.1\r\nHost: rebound.example\r\n\r\n")
        assert (await stranger.head()).startswith(b"HTTP/1.1 421 ")


# -- HAProxy -----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def haproxy(behind: int, directory: Path, site: str) -> Iterator[int]:
    """A running HAProxy, the port of which is given, before a server on the port `behind`."""
    program = shutil.which("haproxy", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if program is None:
        absent("haproxy is not installed: `make system-packages` installs it")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        here = replaced(site, ("bind :80", f"bind fd@{listening.fileno()}"), ("127.0.0.1:8000", f"127.0.0.1:{behind}"))
        (directory / "haproxy.cfg").write_text("global\n    maxconn 100\n" + here)
        command = [program, "-db", "-q", "-f", str(directory / "haproxy.cfg")]
        with (directory / "haproxy.log").open("w") as log:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=[listening.fileno()]
            )
    try:
        yield port
        assert process.poll() is None, (directory / "haproxy.log").read_text()
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture
def behind_haproxy(tmp_path: Path) -> Before:
    """`with behind_haproxy(served) as proxy:` HAProxy stands before a server, as the page has it."""

    @contextlib.contextmanager
    def start(served: Served) -> Iterator[Proxy]:
        [site] = shown("haproxy")
        with haproxy(served.server.addresses[0][1], tmp_path, site) as port, Proxy(port) as proxy:
            yield proxy

    return start


@pytest.mark.parametrize("accept", [SSE, "text/plain"])
async def test_a_stream_passes_haproxy_item_by_item(serving: Serving, behind_haproxy: Before, accept: str) -> None:
    handler = Waiting()
    with behind_haproxy(await serving(handler)) as proxy:
        peer = await proxy.ask(get("/", accept))
        await peer.until(b"first")
        assert "finally" not in handler.steps.done
        handler.go.set()
        assert b"last" in await peer.until(LAST_CHUNK)


@pytest.mark.parametrize("leave", [Peer.reset, Peer.close])
async def test_a_client_that_leaves_haproxy_closes_the_generator(
    serving: Serving, behind_haproxy: Before, leave: Callable[[Peer], None]
) -> None:
    handler = Waiting()
    with behind_haproxy(await serving(handler)) as proxy:
        peer = await proxy.ask(get("/", SSE))
        await handler.steps.reach("waits")
        leave(peer)
        await handler.steps.reach("waits", "finally")


async def test_haproxy_says_who_the_client_is(serving: Serving, behind_haproxy: Before) -> None:
    served = await serving(who, trusted_proxies=("127.0.0.1",))
    with behind_haproxy(served) as proxy:
        forged = await proxy.ask(get("/", None, "X-Forwarded-For: 8.8.8.8"), source="127.0.0.2")
        await forged.until(b"\r\n\r\n")
        await forged.expect(b"http://test from 127.0.0.2")


# -- the page ----------------------------------------------------------------------------------------------------------


def test_the_page_gives_each_line_its_reason() -> None:
    table = PAGE.read_text("utf-8").partition("| line | why |")[2].partition("\n\n")[0]
    for line in re.findall(r"^ +((?:proxy_|keepalive).*);$", SITE, re.MULTILINE):
        if not line.startswith("proxy_pass"):
            assert line.removeprefix("proxy_set_header ") in table, line


def test_the_options_that_the_page_shows_are_some() -> None:
    options = set(re.findall(r"(--[a-z][a-z-]+) ", PAGE.read_text("utf-8")))
    assert "--trusted-proxy" in options
    command = [sys.executable, "-m", "rawstream", "--help"]
    known = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout
    for option in options:
        assert f"{option} " in known, option
