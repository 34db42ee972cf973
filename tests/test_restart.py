"""Restarts on a socket that is handed over: under load, no connection is refused and none is reset."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import re
import signal
import socket
import ssl
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from processes import Running, ask, read_until, running
from support import Clock, Peer, Serving, request, settle

from rawstream import Request, Response, Timeouts

RESTARTS = 10
LOOPS = ["asyncio", "uvloop"]

# It takes a moment for each answer, so that at every time some are under way; and it says who it is.
MODULE = """
import asyncio
import os

from rawstream import Response, Router, Stream

router = Router()

@router.get("/")
async def short(request):
    await asyncio.sleep(0.001)
    return Response.text(str(os.getpid()))

@router.get("/stream")
async def stream(request):
    async def pieces():
        yield str(os.getpid())
        await asyncio.sleep(0.002)
        yield "."
    return Stream(pieces(), format="text")

@router.get("/closing")
async def closing(request):
    yield "open"
    await request.closing.wait()
    yield "closing"
"""


@contextlib.contextmanager
def started(listener: socket.socket, loop: str, cwd: Path) -> Iterator[Running]:
    """A server on `listener`, which serves by now."""
    descriptor = listener.fileno()
    arguments = ["serve", "module:router", "--fd", str(descriptor), "--loop", loop]
    with running(*arguments, cwd=cwd, pass_fds=[descriptor]) as server:
        assert server.before == []
        yield server


def ended(server: Running) -> None:
    """Let it end, which it does in order."""
    server.signal(signal.SIGTERM)
    status, said = server.end()
    assert status == 0
    assert re.fullmatch(r"(closing: [^\n]+\n)?", said)


class Load:
    """Clients that ask all the time, each in a thread of its own, until the block ends.

    `failures` are the refused, the reset and the incomplete; `served` the process ids in the answers, as they come.
    """

    def __init__(self, address: tuple[str, int]) -> None:
        self._address = address
        self._over = threading.Event()
        self.counts: Counter[str] = Counter()
        self.failures: list[str] = []
        self.served: queue.SimpleQueue[int] = queue.SimpleQueue()
        kinds = [(self._anew, "/"), (self._anew, "/stream"), (self._on_one, "/"), (self._on_one, "/stream")]
        self._threads = [threading.Thread(target=ask, args=(target,)) for ask, target in kinds for _ in range(3)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(30)
        assert not any(thread.is_alive() for thread in self._threads)

    def wait_for(self, process: int) -> None:
        """Wait until `process` has answered."""
        while self.served.get(timeout=60) != process:
            pass

    def _anew(self, target: str) -> None:
        """Each request on a connection of its own."""
        while not self._over.is_set():
            try:
                with self._connected() as sock:
                    self._exchange(sock, target)
            except OSError as exc:
                self.failures.append(f"anew {target}: {exc!r}")

    def _on_one(self, target: str) -> None:
        """One request after the other on a connection. A server may close it in between: RFC 9112 section 9.3.1."""
        while not self._over.is_set():
            try:
                with self._connected() as sock:
                    answered = 0
                    while not self._over.is_set():
                        try:
                            keeps = self._exchange(sock, target)
                        except EOFError:
                            if not answered:
                                raise
                            self.counts["asked again"] += 1
                            break
                        answered += 1
                        if not keeps:
                            break
            except (OSError, EOFError) as exc:
                self.failures.append(f"on one {target}: {exc!r}")

    def _connected(self) -> socket.socket:
        return socket.create_connection(self._address, timeout=60)

    def _exchange(self, sock: socket.socket, target: str) -> bool:
        """One request and its answer; whether the connection stays. EOFError: closed before the answer began."""
        sock.sendall(f"GET {target} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
        data = b""
        while not (match := re.fullmatch(_ANSWER, data)):
            piece = sock.recv(65536)
            if not piece:
                raise OSError(f"incomplete: {data!r}") if data else EOFError("no answer")
            data += piece
        self.counts[target] += 1
        self.served.put(int(match[2] or match[3]))
        return b"\r\nConnection: close\r\n" not in match[1]


_ANSWER = re.compile(
    rb"(HTTP/1\.1 200 OK\r\n(?:[^\r\n]+\r\n)+)\r\n"
    rb"(?:(\d+)|[0-9a-f]+\r\n(\d+)\r\n1\r\n\.\r\n0\r\n\r\n)",
)


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "module.py").write_text(MODULE)
    return tmp_path


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0), backlog=4096) as sock:
        yield sock


@pytest.mark.parametrize("loop", LOOPS)
def test_ten_restarts_under_load_refuse_and_reset_no_connection(
    project: Path, listener: socket.socket, loop: str
) -> None:
    with contextlib.ExitStack() as servers:
        old = servers.enter_context(started(listener, loop, project))
        with Load(listener.getsockname()) as load:
            load.wait_for(old.process.pid)
            for _ in range(RESTARTS):
                new = servers.enter_context(started(listener, loop, project))
                ended(old)
                load.wait_for(new.process.pid)
                old = new
        assert load.failures == []
        assert min(load.counts[target] for target in ("/", "/stream")) > RESTARTS
        ended(old)


# -- the moments in which a connection could get lost ------------------------------------------------------------------


async def ok(request: Request) -> Response:
    return Response.text("ok\n")


async def test_a_connection_that_was_accepted_just_before_closing_is_answered(serving: Serving) -> None:
    """asyncio drops connections that it has accepted, and not yet handed over when the listener is closed."""
    served = await serving(ok)
    loop = asyncio.get_running_loop()
    [address] = served.server.addresses
    assert isinstance(address, tuple)
    with socket.create_connection(address) as sock:  # no turn of the loop passes
        sock.setblocking(False)
        # In the loop's next turn it is accepted, and in the one after that handed over; before that, the server closes.
        loop.call_soon(loop.call_soon, served.server.begin_closing)
        await served.server.closing.wait()
        closed = loop.create_task(served.server.wait_closed())
        await settle()
        assert not closed.done()
        peer = Peer(sock)
        await peer.send(request())
        assert (await peer.response())[1] == b"ok\n"
        assert await peer.rest() == b""
        assert peer.ending == "end"
        await closed


async def test_a_request_that_comes_when_the_server_closes_already_is_answered(serving: Serving) -> None:
    """Its client was accepted before: nobody else will answer it."""
    served = await serving(ok)
    peer, other = await served.connect(), await served.connect()
    await other.send(request())
    await other.response()  # so both are accepted
    served.server.begin_closing()
    await peer.send(request())
    head, body = await peer.response()
    assert b"\r\nConnection: close\r\n" in head
    assert body == b"ok\n"
    assert await peer.rest() == b""
    assert peer.ending == "end"


async def test_a_next_request_that_is_on_its_way_when_the_server_closes_is_answered(serving: Serving) -> None:
    served = await serving(ok)
    peer = await served.connect()
    await peer.send(request())
    await peer.response()
    await peer.send(request())  # it is in the kernel, and the loop has not read it
    served.server.begin_closing()
    assert (await peer.response())[1] == b"ok\n"
    assert await peer.rest() == b""
    assert peer.ending == "end"


async def test_a_next_request_that_comes_too_late_meets_an_end_and_no_reset(serving: Serving) -> None:
    """So that its client knows that it may ask again (RFC 9112 section 9.3.1)."""
    served = await serving(ok)
    peer = await served.connect()
    await peer.send(request())
    await peer.response()
    await served.server.close()
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        await peer.send(request())
    assert await peer.rest() == b""
    assert peer.ending == "end"


async def test_silent_clients_do_not_hold_a_closing_server_for_long(serving: Serving, clock: Clock) -> None:
    """One that never asked is waited for a second, one whose request was answered a tenth; and what deadlines share."""
    served = await serving(ok, timeouts=Timeouts(grace=60))
    silent, idle = await served.connect(), await served.connect()
    await idle.send(request())
    await idle.response()
    served.server.begin_closing()
    await clock.advance(0.4)
    assert (await idle.rest(), served.server.connections) == (b"", 1)
    await clock.advance(1)
    assert await silent.rest() == b""
    await served.server.wait_closed()


# -- systemd -----------------------------------------------------------------------------------------------------------

SYSTEMD = """
import os, sys
os.dup2({descriptor}, 3)
os.environ.update(LISTEN_PID=str({process}), LISTEN_FDS="1", LISTEN_FDNAMES="web")
os.execv(sys.executable, [sys.executable, "-m", "rawstream", *sys.argv[1:]])
"""


@contextlib.contextmanager
def activated(listener: socket.socket, *arguments: str, cwd: Path, process: str = "os.getpid()") -> Iterator[Running]:
    """A server started as systemd does it: with the socket as descriptor 3, and told so."""
    descriptor = listener.fileno()
    start = "-c", SYSTEMD.format(descriptor=descriptor, process=process)
    with running(*arguments, cwd=cwd, start=start, pass_fds=[descriptor]) as server:
        yield server


def test_a_socket_that_systemd_hands_over_is_served_and_handlers_see_nothing_of_it(
    project: Path, listener: socket.socket
) -> None:
    (project / "environment.py").write_text(
        "import os\n"
        "from rawstream import Response\n"
        "async def handler(request):\n"
        "    return Response.text(repr([name for name in os.environ if name.startswith('LISTEN_')]))\n"
    )
    with activated(listener, "serve", "environment:handler", cwd=project) as server:
        assert server.port == listener.getsockname()[1]
        with server.connect() as client:
            assert ask(client).endswith(b"\r\n\r\n[]")
        ended(server)


def test_workers_get_it_too(project: Path, listener: socket.socket) -> None:
    with activated(listener, "serve", "module:router", "--workers", "2", cwd=project) as server:
        assert server.port == listener.getsockname()[1]
        with server.connect() as client:
            assert int(ask(client).rpartition(b"\r\n\r\n")[2]) in server.workers
        ended(server)


def test_a_socket_for_another_process_is_not_taken(project: Path, listener: socket.socket) -> None:
    with activated(listener, "--uds", "a.sock", cwd=project, process="1") as server:
        assert " listening on unix:a.sock (" in server.first_line
        ended(server)


def test_a_place_beside_the_one_that_systemd_gives_is_refused(project: Path, listener: socket.socket) -> None:
    with activated(listener, "--port", "0", cwd=project) as server:
        assert server.end()[0] == 2
        assert server.before == ["rawstream: LISTEN_FDS and --port exclude each other: each says where to listen"]


# -- a new certificate -------------------------------------------------------------------------------------------------


def shown(server: Running) -> x509.Certificate:
    """The certificate of a new handshake."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with server.connect() as sock, context.wrap_socket(sock) as client:
        certificate = client.getpeercert(binary_form=True)
        assert certificate is not None
        return x509.load_der_x509_certificate(certificate)


def serial_number(server: Running) -> str:
    """That of the certificate which a new handshake shows."""
    return str(shown(server).serial_number)


@pytest.mark.parametrize("loop", LOOPS)
def test_sighup_loads_a_new_certificate_while_streams_go_on(project: Path, authority: trustme.CA, loop: str) -> None:
    def renew() -> None:
        certificate = authority.issue_cert("127.0.0.1")
        certificate.private_key_pem.write_to_path(project / "key.pem")
        certificate.cert_chain_pems[0].write_to_path(project / "chain.pem")

    renew()
    context = ssl.create_default_context()
    authority.configure_trust(context)
    files = ["--certfile", "chain.pem", "--keyfile", "key.pem"]
    with (
        running("serve", "module:router", "--port", "0", "--loop", loop, *files, cwd=project) as server,
        context.wrap_socket(server.connect(), server_hostname="127.0.0.1") as old,
    ):
        old.sendall(b"GET /closing HTTP/1.1\r\nHost: test\r\nAccept: text/plain\r\n\r\n")
        read_until(old, b"open")
        first = serial_number(server)

        renew()
        server.signal(signal.SIGHUP)
        assert server.line() == "the certificate is loaded anew"
        second = serial_number(server)
        assert second != first

        (project / "key.pem").write_bytes(authority.issue_cert("127.0.0.1").private_key_pem.bytes())
        server.signal(signal.SIGHUP)
        assert server.line() == (
            "the old certificate stays: the key in key.pem is not that of the certificate in chain.pem"
        )
        assert serial_number(server) == second

        server.signal(signal.SIGTERM)
        assert b"closing" in read_until(old, b"0\r\n\r\n")
        assert server.end()[0] == 0


@pytest.mark.parametrize("loop", LOOPS)
def test_sighup_loads_a_certificate_with_a_key_of_another_kind(project: Path, authority: trustme.CA, loop: str) -> None:
    """A TLS context holds one certificate for each kind of key, and would go on to show the old one beside the new."""

    def renew(kind: trustme.KeyType) -> None:
        certificate = authority.issue_cert("127.0.0.1", key_type=kind)
        certificate.private_key_and_cert_chain_pem.write_to_path(project / "both.pem")

    renew(trustme.KeyType.ECDSA)
    with running("--port", "0", "--loop", loop, "--certfile", str(project / "both.pem")) as server:
        assert isinstance(shown(server).public_key(), ec.EllipticCurvePublicKey)
        for kind, key in (
            (trustme.KeyType.RSA, rsa.RSAPublicKey),
            (trustme.KeyType.ECDSA, ec.EllipticCurvePublicKey),
        ):
            renew(kind)
            server.signal(signal.SIGHUP)
            assert server.line() == "the certificate is loaded anew"
            assert isinstance(shown(server).public_key(), key)
        ended(server)


def test_sighup_without_a_certificate_is_ignored(project: Path) -> None:
    with running("--port", "0") as server:
        server.signal(signal.SIGHUP)
        assert server.line() == "SIGHUP ignored: there is no certificate to load anew"
        ended(server)
