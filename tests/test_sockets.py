"""Sockets to listen on: bound, inherited, and what accepted connections inherit from them."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rawstream.errors import LocalError
from rawstream.sockets import SocketFile, activated, bound, bound_unix, inherited, listen, tune


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A short path: a Unix socket's has 107 bytes at most."""
    monkeypatch.chdir(tmp_path)
    return "a.sock"


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock


# -- inherited ---------------------------------------------------------------------------------------------------------


def test_an_inherited_listening_socket_is_taken_as_it_is(listener: socket.socket) -> None:
    address = listener.getsockname()
    with inherited(listener.detach()) as sock:
        assert sock.getsockname() == address
        assert sock.family == socket.AF_INET


def test_an_inherited_unix_socket_is_taken_too(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen()
        with inherited(listening.detach()) as sock:
            assert sock.getsockname() == path


def test_a_descriptor_that_is_no_socket_is_refused_and_left_open() -> None:
    reading, writing = os.pipe()
    with pytest.raises(OSError, match=rf"file descriptor {reading} is not an open socket"):
        inherited(reading)
    os.close(reading)
    os.close(writing)


def test_a_descriptor_that_is_not_open_is_refused() -> None:
    with pytest.raises(OSError, match="file descriptor 9999 is not an open socket") as raised:
        inherited(9999)
    assert raised.value.errno == errno.EBADF


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_a_socket_that_does_not_listen_is_refused_and_left_open(kind: int) -> None:
    with socket.socket(socket.AF_INET, kind) as sock:
        with pytest.raises(LocalError, match=f"file descriptor {sock.fileno()} is not a listening stream socket"):
            inherited(sock.fileno())
        sock.getsockname()


def test_what_is_started_here_does_not_inherit_it_again(listener: socket.socket) -> None:
    listener.set_inheritable(True)
    with inherited(listener.detach()) as sock:
        assert not sock.get_inheritable()


# -- from systemd ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("process", "count", "descriptors"),
    [
        (None, "2", [3, 4]),
        (None, "0", []),
        (None, None, []),
        (None, "", []),
        (None, "two", []),
        (None, "-1", []),
        ("1", "2", []),  # for another process
        ("", "2", []),
    ],
)
def test_the_descriptors_that_systemd_hands_over(
    monkeypatch: pytest.MonkeyPatch, process: str | None, count: str | None, descriptors: list[int]
) -> None:
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()) if process is None else process)
    monkeypatch.delenv("LISTEN_FDS", raising=False)
    if count is not None:
        monkeypatch.setenv("LISTEN_FDS", count)
    monkeypatch.setenv("LISTEN_FDNAMES", "web:admin")
    assert activated() == descriptors
    assert [name for name in os.environ if name.startswith("LISTEN_")] == []
    assert activated() == []


# -- Unix sockets ------------------------------------------------------------------------------------------------------


def test_a_unix_socket_is_bound(path: str) -> None:
    with bound_unix(path) as sock:
        assert sock.getsockname() == path


def test_everybody_may_connect_who_may_enter_the_directory(path: str) -> None:
    """A proxy is another user, and no umask of ours shall keep it out."""
    mask = os.umask(0o077)
    try:
        with bound_unix(path):
            assert stat.S_IMODE(os.stat(path).st_mode) == 0o666
    finally:
        os.umask(mask)


def test_the_file_of_a_server_that_is_gone_is_replaced(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind(path)
        gone.listen()
    with bound_unix(path) as sock:
        sock.listen()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)


def test_the_file_of_a_server_that_listens_is_left_to_it(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(path)
        other.listen()
        with pytest.raises(OSError) as raised:
            bound_unix(path)
        assert raised.value.errno == errno.EADDRINUSE
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)


def test_a_file_that_is_no_socket_is_left_alone(path: str) -> None:
    Path(path).write_text("precious")
    with pytest.raises(FileExistsError, match="there is a file that is no socket"):
        bound_unix(path)
    assert Path(path).read_text() == "precious"


def test_a_socket_of_another_kind_is_left_alone(path: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(path)
        with pytest.raises(OSError) as raised:
            bound_unix(path)
    assert raised.value.errno == errno.EADDRINUSE


def test_a_directory_that_is_not_there_is_an_os_error(path: str) -> None:
    with pytest.raises(FileNotFoundError):
        bound_unix(f"nowhere/{path}")


def test_its_file_is_removed_in_the_end(path: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with bound_unix(path):
        file = SocketFile(path)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")  # a program may go where it wants
    file.remove()
    assert not (tmp_path / path).exists()
    file.remove()


def test_the_file_of_a_server_that_came_after_is_left_to_it(path: str) -> None:
    with bound_unix(path):
        file = SocketFile(path)
    with bound_unix(path):
        file.remove()
        assert Path(path).exists()


# -- addresses ---------------------------------------------------------------------------------------------------------


def close(sockets: list[socket.socket]) -> list[Any]:
    """Close them; where they were bound."""
    names = [sock.getsockname()[:2] for sock in sockets]
    for sock in sockets:
        sock.close()
    return names


async def test_port_0_takes_a_free_one() -> None:
    [(host, port)] = close(await bound(["127.0.0.1"], 0))
    assert host == "127.0.0.1"
    assert port > 0


async def test_several_hosts_share_a_port() -> None:
    (host, port), (other_host, other_port) = close(await bound(["127.0.0.1", "127.0.0.2"], 0))
    assert (host, other_host) == ("127.0.0.1", "127.0.0.2")
    assert port == other_port


async def test_ipv6() -> None:
    [(host, _)] = close(await bound(["::1"], 0))
    assert host == "::1"


async def test_no_host_is_every_address_of_both_families_on_one_port() -> None:
    names = close(await bound([None], 0))
    assert {host for host, _ in names} == {"0.0.0.0", "::"}
    assert len({port for _, port in names}) == 1


async def test_an_empty_host_is_every_address_too() -> None:
    assert {host for host, _ in close(await bound([""], 0))} == {"0.0.0.0", "::"}


async def test_a_name_that_is_not_known_is_an_os_error(monkeypatch: pytest.MonkeyPatch) -> None:
    async def getaddrinfo(*_: Any, **__: Any) -> list[Any]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
    with pytest.raises(OSError, match="Name or service not known"):
        await bound(["name.test"], 0)


async def test_a_host_that_is_no_name_at_all_leaves_nothing_open() -> None:
    with pytest.raises((OSError, UnicodeError)):
        await bound(["127.0.0.1", "a" * 70 + ".test"], 0)


async def test_a_port_in_use_is_an_os_error_and_leaves_nothing_open(listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    with pytest.raises(OSError) as raised:
        await bound(["127.0.0.2", "127.0.0.1"], port)
    assert raised.value.errno == errno.EADDRINUSE


async def test_a_port_that_cannot_be_is_an_error_and_leaves_nothing_open() -> None:
    with pytest.raises((OSError, OverflowError)):
        await bound(["127.0.0.1"], 70_000)


async def test_an_address_of_another_machine_is_an_os_error() -> None:
    with pytest.raises(OSError) as raised:
        await bound(["192.0.2.1"], 0)
    assert raised.value.errno == errno.EADDRNOTAVAIL


async def test_a_name_with_an_address_that_is_not_here_is_bound_to_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine whose hosts file gives localhost as ::1 need not have IPv6."""

    async def getaddrinfo(*_: Any, **__: Any) -> list[Any]:
        kind = socket.AF_INET, socket.SOCK_STREAM, 6, ""
        return [(*kind, ("192.0.2.1", 0)), (*kind, ("127.0.0.1", 0))]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
    [(host, _)] = close(await bound(["both.test"], 0))
    assert host == "127.0.0.1"


async def test_the_port_can_be_bound_again_at_once() -> None:
    """SO_REUSEADDR: connections of a server that just ended do not hold its port."""
    [listening] = await bound(["127.0.0.1"], 0)
    listening.listen()
    listening.setblocking(True)
    address = listening.getsockname()
    with socket.create_connection(address) as client:
        accepted, _ = listening.accept()
        accepted.close()  # the side that closes first waits for late packets: TIME_WAIT
        listening.close()
        assert client.recv(1) == b""
    assert close(await bound([address[0]], address[1])) == [address]


def test_all_listen() -> None:
    ours = [socket.create_server(("127.0.0.1", 0)), socket.socket()]
    ours[1].bind(("127.0.0.1", 0))
    listen(ours, 7.5)
    for address in [sock.getsockname() for sock in ours]:
        socket.create_connection(address).close()
    close(ours)


def test_where_one_cannot_listen_all_are_closed(listener: socket.socket) -> None:
    ours = [socket.socket(), socket.socket()]
    ours[0].bind(("127.0.0.1", 0))
    for sock in ours:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", 0))
        ours[1].bind(other.getsockname())
        other.listen()
        with pytest.raises(OSError) as raised:
            listen(ours, 7.5)
        assert raised.value.errno == errno.EADDRINUSE
    assert [sock.fileno() for sock in ours] == [-1, -1]


# -- options -----------------------------------------------------------------------------------------------------------


def test_accepted_connections_inherit_the_options_for_streams(listener: socket.socket) -> None:
    tune(listener, 7.5)
    with socket.create_connection(listener.getsockname()):
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT) == 16384
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 7500


def test_a_platform_without_the_options_is_fine(listener: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    before = listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
    lowat, timeout = socket.TCP_NOTSENT_LOWAT, socket.TCP_USER_TIMEOUT
    monkeypatch.delattr(socket, "TCP_NOTSENT_LOWAT")
    monkeypatch.delattr(socket, "TCP_USER_TIMEOUT")
    tune(listener, 7.5)
    assert listener.getsockopt(socket.IPPROTO_TCP, timeout) == before
    assert listener.getsockopt(socket.IPPROTO_TCP, lowat) != 16384


def test_a_unix_socket_has_no_such_options(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        tune(sock, 7.5)
