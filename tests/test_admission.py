"""How many connections find room, in all and from each address."""

import math
import resource
import sys
from collections.abc import Callable, Iterator

import pytest

from rawstream.admission import Admission
from rawstream.config import Limits

ANN = ("192.0.2.1", 1), ("192.0.2.1", 2), ("192.0.2.1", 3)
BOB = ("2001:db8::1", 1)
UNIX = None


def enter(admission: Admission, *clients: tuple[str, int] | None) -> list[str | None]:
    """A connection of each of them comes, and is not heard of again."""
    return [admission.enter(object(), client) for client in clients]


@pytest.fixture
def files() -> Iterator[Callable[[int], None]]:
    """How many files this process may open, for a moment."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield lambda limit: resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_there_is_room_for_as_many_as_the_limit() -> None:
    admission = Admission(Limits(connections=2))
    assert enter(admission, *ANN, BOB, UNIX) == [None, None, *["connections"] * 3]


def test_who_leaves_makes_room_also_if_there_was_none_for_it() -> None:
    admission = Admission(Limits(connections=1))
    assert admission.enter("a", BOB) is None
    assert admission.enter("b", UNIX) == "connections"
    assert admission.enter("c", ANN[0]) == "connections"
    for who in "bac":
        admission.leave(who)
    assert admission.enter("d", ANN[1]) is None


def test_without_a_limit_for_each_client_one_may_take_all_the_room() -> None:
    admission = Admission(Limits(connections=3))
    assert enter(admission, *ANN) == [None] * 3
    assert enter(admission, BOB) == ["connections"]


def test_each_address_has_its_own_room_whatever_its_port() -> None:
    admission = Admission(Limits(connections_per_client=2))
    assert [admission.enter(client, client) for client in ANN] == [None, None, "connections_per_client"]
    assert admission.enter(BOB, BOB) is None
    admission.leave(ANN[2])
    assert admission.enter(ANN[2], ANN[2]) == "connections_per_client"
    admission.leave(ANN[2])
    admission.leave(ANN[0])
    assert admission.enter(ANN[2], ANN[2]) is None


def test_who_has_too_many_is_told_that_rather_than_that_all_is_full() -> None:
    """The one is theirs to mend."""
    admission = Admission(Limits(connections=1, connections_per_client=1))
    assert enter(admission, *ANN[:2]) == [None, "connections_per_client"]
    assert enter(admission, BOB) == ["connections"]


def test_on_a_unix_socket_there_are_no_addresses_to_tell_apart() -> None:
    admission = Admission(Limits(connections=3, connections_per_client=1))
    assert enter(admission, *[UNIX] * 4) == [None, None, None, "connections"]


def test_an_address_that_has_left_is_forgotten() -> None:
    admission = Admission(Limits())
    for number in range(1000):
        admission.enter(number, (f"2001:db8::{number:x}", 1))
        admission.leave(number)
    assert not admission._clients


def test_a_tenth_more_and_some_are_told_that_there_is_no_room() -> None:
    admission = Admission(Limits(connections=100))
    for _ in range(100 + 10 + 16):
        enter(admission, BOB)
        assert not admission.overrun
    assert admission.enter("one more", BOB) == "connections"
    assert admission.overrun
    admission.leave("one more")
    assert not admission.overrun


def room(limits: Limits) -> int:
    """How many connections find room."""
    admission = Admission(limits)
    return next(count for count in range(100_000) if admission.enter(count, UNIX))


def test_there_is_no_more_room_than_the_process_may_open_files(files: Callable[[int], None]) -> None:
    files(264)
    assert room(Limits()) == 180  # nine tenths of what is left when 64 are kept for others; a tenth to refuse the rest
    assert room(Limits(connections=179)) == 179


def test_room_and_refusals_fit_into_what_the_process_may_open(files: Callable[[int], None]) -> None:
    for limit in (256, 1024, 4096):
        files(limit)
        admission = Admission(Limits())
        count = 0
        while not admission.overrun:
            admission.enter(count, UNIX)
            count += 1
        assert count < limit - 32


@pytest.mark.parametrize("limit", [60, 64, 65])
def test_where_hardly_a_file_may_be_opened_there_is_room_for_one(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (limit, limit))
    assert room(Limits()) == 1


def test_where_files_are_unlimited_the_limit_alone_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert room(Limits()) == 20_000


def test_on_windows_sockets_are_no_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(resource, "getrlimit", lambda _: math.nan)
    assert room(Limits()) == 20_000
