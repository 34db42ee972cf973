"""The tree of errors: who is at fault, what is answered, and what the peer may be told."""

import inspect
import re
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

import pytest

from rawstream import errors

STATUSES = {
    "RawstreamError": 500,
    "LocalError": 500,
    "AnswerError": 500,
    "ItemError": 500,
    "EventError": 500,
    "RemoteError": 400,
    "ProtocolError": 400,
    "HeadTooLarge": 431,
    "TargetTooLong": 414,
    "BodyTooLarge": 413,
    "ReadTimeout": 408,
    "Disconnected": 400,
    "Stalled": 400,
    "ResponseTimeout": 408,
    "BadResponse": 400,
}


def drawn() -> Iterator[tuple[str, str | None]]:
    """Each class of the tree in the module's docstring, with the one that it hangs from."""
    above: list[tuple[int, str]] = []
    assert errors.__doc__ is not None
    for line in errors.__doc__.splitlines():
        if match := re.match(r"    ((?:│   |    )*)(├── |└── )?([A-Z]\w+)", line):
            depth = (len(match[1]) + len(match[2] or "")) // 4
            above = [*above[:depth], (depth, match[3])]
            yield match[3], above[-2][1] if depth else None


def defined() -> dict[str, Any]:
    classes: dict[str, Any] = dict(inspect.getmembers(errors, inspect.isclass))
    return {name: found for name, found in classes.items() if found.__module__ == errors.__name__}


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    tree = dict(drawn())
    assert tree.keys() == defined().keys()
    for name, parent in tree.items():
        assert defined()[name].__bases__[0].__name__ == (parent or "Exception")


@pytest.mark.parametrize("name", defined())
def test_every_error_is_caught_by_the_root(name: str) -> None:
    assert issubclass(defined()[name], errors.RawstreamError)


@pytest.mark.parametrize(("name", "status"), STATUSES.items())
def test_an_error_knows_its_status(name: str, status: int) -> None:
    arguments = ("set", "why") if name == "ItemError" else ("why",)
    assert defined()[name](*arguments).status == status


def test_misuse_is_also_what_python_would_call_it() -> None:
    assert issubclass(errors.AnswerError, TypeError)
    assert issubclass(errors.ItemError, ValueError)
    assert issubclass(errors.EventError, ValueError)


@pytest.mark.parametrize("name", ["LocalError", "AnswerError", "EventError"])
def test_what_went_wrong_on_our_side_is_not_told(name: str) -> None:
    error = defined()[name]("/etc/secret is missing")
    assert str(error) == "/etc/secret is missing"
    assert error.public == ""


def test_an_item_error_says_which_item_once_that_is_known() -> None:
    error = errors.ItemError("set", "cannot be sent")
    assert (str(error), error.public) == ("an item (set) cannot be sent", "")
    error.index = 3
    assert (str(error), error.public) == ("item 3 (set) cannot be sent", "")


def test_what_the_peer_did_wrong_is_told_to_it() -> None:
    assert errors.ProtocolError("illegal request line").public == "illegal request line"
    assert errors.Disconnected().public == ""


def test_who_handles_the_loss_of_the_peer_handles_its_stalling() -> None:
    with pytest.raises(errors.Disconnected, match="takes nothing"):
        raise errors.Stalled("the peer takes nothing")


CLIENTS = [
    "BadResponse", "ConnectFailed", "ContentError", "GaveUp", "IncompleteResponse", "ItemTooLarge", "Redirected",
    "ResponseTimeout", "StatusError", "StreamFailed",
]  # fmt: skip


def test_what_another_server_did_is_a_fetch_error_and_what_our_own_peer_did_is_none() -> None:
    below = [name for name, found in defined().items() if issubclass(found, errors.FetchError)]
    assert sorted(below) == sorted([*CLIENTS, "FetchError"])
    for name in CLIENTS:
        assert not issubclass(defined()[name], errors.Disconnected)


def test_a_timeout_of_the_client_is_a_read_timeout_and_bytes_that_are_no_response_break_the_protocol() -> None:
    assert issubclass(errors.ResponseTimeout, errors.ReadTimeout)
    assert issubclass(errors.BadResponse, errors.ProtocolError)


def test_a_remote_error_takes_another_status() -> None:
    error = errors.ProtocolError("no CONNECT here", 501)
    assert (error.status, str(error)) == (501, "no CONNECT here")
    assert errors.ProtocolError.status == 400


# -- HTTPError ---------------------------------------------------------------------------------------------------------


def test_an_http_error_has_status_detail_and_headers() -> None:
    error = errors.HTTPError(503, "come back later", [("Retry-After", "5")])
    assert (error.status, error.detail, error.public) == (503, "come back later", "come back later")
    assert error.headers == (("Retry-After", "5"),)
    assert str(error) == "come back later"
    assert errors.HTTPError(503, headers={"Retry-After": "5"}).headers == (("Retry-After", "5"),)


def test_an_http_error_without_a_detail_reads_as_its_phrase_and_tells_nothing_more() -> None:
    error = errors.HTTPError(404)
    assert (str(error), error.detail, error.public, error.headers) == ("Not Found", "", "", ())


def test_an_http_error_takes_a_member_of_http_status() -> None:
    error = errors.HTTPError(HTTPStatus.CONFLICT)
    assert type(error.status) is int
    assert error.status == 409


@pytest.mark.parametrize("status", [400, 599])
def test_the_first_and_the_last_status_of_an_error(status: int) -> None:
    assert errors.HTTPError(status).status == status


@pytest.mark.parametrize("status", [399, 600, 200, 0, -404, 404.5, "404", None])
def test_an_http_error_with_another_status_is_refused(status: int) -> None:
    with pytest.raises(ValueError, match=f"from 400 to 599, not {status!r}"):
        errors.HTTPError(status)


@pytest.mark.parametrize("detail", [{"field": "name"}, ValueError("why"), b"why", None, 422])
def test_the_detail_of_an_http_error_is_text(detail: Any) -> None:
    with pytest.raises(TypeError, match=f"a str, not {type(detail).__name__}"):
        errors.HTTPError(422, detail)


def test_not_found() -> None:
    error = errors.NotFound("no such job")
    assert (error.status, error.public, error.headers) == (404, "no such job", ())
    assert errors.NotFound().public == ""


def test_method_not_allowed_names_the_allowed_ones_in_text_and_field() -> None:
    error = errors.MethodNotAllowed(iter(["GET", "HEAD"]))
    assert (error.status, error.public) == (405, "this path takes GET, HEAD")
    assert error.headers == (("Allow", "GET, HEAD"),)


def test_not_acceptable() -> None:
    error = errors.NotAcceptable("only JSON here")
    assert (error.status, error.public, error.headers) == (406, "only JSON here", ())
    assert errors.NotAcceptable().public == ""


def test_unavailable_says_when_to_come_back_if_that_is_known() -> None:
    error = errors.Unavailable("too many streams are open", 5)
    assert (error.status, error.public) == (503, "too many streams are open")
    assert error.headers == (("Retry-After", "5"),)
    assert errors.Unavailable("not now", retry_after=0).headers == (("Retry-After", "0"),)
    assert (errors.Unavailable().public, errors.Unavailable().headers) == ("", ())


# -- phrases -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "phrase"),
    [
        (200, "OK"),
        (204, "No Content"),
        (404, "Not Found"),
        (405, "Method Not Allowed"),
        (408, "Request Timeout"),
        (413, "Content Too Large"),
        (414, "URI Too Long"),
        (416, "Range Not Satisfiable"),
        (422, "Unprocessable Content"),
        (431, "Request Header Fields Too Large"),
        (500, "Internal Server Error"),
        (599, ""),
        (299, ""),
    ],
)
def test_phrases_are_those_of_rfc_9110_on_every_python(status: int, phrase: str) -> None:
    assert errors.phrase(status) == phrase
