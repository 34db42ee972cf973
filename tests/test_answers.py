"""What goes out for an answer: its fields, a stream's format, and the words for a failure."""

import json
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from email.utils import format_datetime, parsedate_to_datetime
from typing import Any

import pytest

from rawstream import answers, errors, formats
from rawstream.answers import failure, fields, represent, verdict
from rawstream.fields import Headers, pairs
from rawstream.messages import Response, Stream
from rawstream.patience import Overdue
from rawstream.service import NoRoom

GMT = re.compile(r"(Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d [A-Z][a-z][a-z] \d{4} \d\d:\d\d:\d\d GMT")


class Now:
    """A clock in the place of `time`."""

    def __init__(self, now: float) -> None:
        self.now = now

    def time(self) -> float:
        return self.now


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> Now:
    """The time that the Date field tells."""
    now = Now(datetime(1994, 11, 6, 8, 49, 37, tzinfo=UTC).timestamp())
    monkeypatch.setattr(answers, "time", now)
    return now


DATE = ("Date", "Sun, 06 Nov 1994 08:49:37 GMT")  # RFC 9110 section 5.6.7


# -- fields ------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("now")
def test_an_answer_has_a_date() -> None:
    assert fields(()) == [DATE]


def test_the_date_is_that_of_the_second(now: Now) -> None:
    assert fields(())[0] == DATE
    now.now += 0.9
    assert fields(())[0] == DATE
    now.now += 0.1
    assert fields(())[0] == ("Date", "Sun, 06 Nov 1994 08:49:38 GMT")
    now.now -= 1  # a clock may be set back
    assert fields(())[0] == DATE


def test_the_date_is_now() -> None:
    before = datetime.now(UTC).replace(microsecond=0)
    [(name, value)] = fields(())
    assert name == "Date"
    assert GMT.fullmatch(value)
    assert before <= parsedate_to_datetime(value) <= datetime.now(UTC)
    assert value == format_datetime(parsedate_to_datetime(value), usegmt=True)


@pytest.mark.parametrize("given", [[("A", "1"), ("b", "2")], {"A": "1", "b": "2"}, Headers([("A", "1"), ("b", "2")])])
@pytest.mark.usefixtures("now")
def test_the_handlers_own_fields_come_last_and_as_they_are(given: Any) -> None:
    assert fields(given, [("C", "3")]) == [DATE, ("C", "3"), ("A", "1"), ("b", "2")]


@pytest.mark.usefixtures("now")
def test_what_the_handler_names_replaces_a_default_in_any_case() -> None:
    own = [("DATE", "never"), ("vary", "*"), ("Vary", "Cookie")]
    assert fields(own, [("Vary", "Accept"), ("Content-Type", "text/csv")]) == [("Content-Type", "text/csv"), *own]


def test_fields_are_the_callers_to_change() -> None:
    own = [("A", "1")]
    fields(own).append(("B", "2"))
    assert own == [("A", "1")]


# -- how a stream is represented ---------------------------------------------------------------------------------------


class Silent:
    """An iterator that need not be closed."""

    def __aiter__(self) -> AsyncIterator[str]:
        raise AssertionError


def stream(**options: Any) -> Stream:
    return Stream(Silent(), **options)


def asked(**fields: str) -> Headers:
    return Headers([(name.replace("_", "-"), value) for name, value in fields.items()])


@pytest.mark.usefixtures("now")
def test_the_client_chooses_a_format_and_the_answer_says_that_it_did() -> None:
    sent_as = represent(stream(), asked(accept="text/event-stream"))
    assert sent_as.format is formats.fixed("sse")
    assert sent_as.fields == [
        DATE,
        ("Content-Type", "text/event-stream"),
        ("Vary", "Accept"),
        ("Cache-Control", "no-store, no-transform"),
        ("X-Accel-Buffering", "no"),
    ]
    assert sent_as.gzip is False


@pytest.mark.usefixtures("now")
def test_a_client_that_names_no_format_is_sent_json() -> None:
    sent_as = represent(stream(), asked())
    assert sent_as.fields == [DATE, ("Content-Type", "application/json; charset=utf-8"), ("Vary", "Accept")]


@pytest.mark.usefixtures("now")
def test_a_format_that_the_handler_fixed_does_not_vary() -> None:
    sent_as = represent(stream(format="text"), asked(accept="application/json"))
    assert sent_as.format is formats.fixed("text")
    assert sent_as.fields == [DATE, ("Content-Type", "text/plain; charset=utf-8")]


@pytest.mark.usefixtures("now")
def test_the_handlers_own_fields_replace_those_of_the_format() -> None:
    own = {"Content-Type": "text/x-log", "X-Job": "7"}
    assert represent(stream(format="text", headers=own), asked()).fields == [DATE, *own.items()]


def test_a_client_that_takes_none_of_the_formats_is_refused() -> None:
    with pytest.raises(errors.NotAcceptable):
        represent(stream(), asked(accept="image/png"))


def test_a_format_that_does_not_exist_is_our_fault() -> None:
    with pytest.raises(errors.LocalError):
        represent(stream(format="xml"), asked())


@pytest.mark.usefixtures("now")
def test_gzip_is_for_a_handler_that_asks_for_it_and_a_client_that_accepts_it() -> None:
    sent_as = represent(stream(format="text", gzip=True), asked(accept_encoding="br, gzip"))
    assert sent_as.gzip is True
    assert sent_as.fields[2:] == [("Vary", "Accept-Encoding"), ("Content-Encoding", "gzip")]
    sent_as = represent(stream(format="text"), asked(accept_encoding="gzip"))
    assert sent_as.gzip is False
    assert sent_as.fields == [DATE, ("Content-Type", "text/plain; charset=utf-8")]


@pytest.mark.parametrize("accept_encoding", ["", "br", "gzip;q=0", "identity"])
def test_who_does_not_accept_gzip_is_sent_the_text_and_caches_are_told_that_it_varies(accept_encoding: str) -> None:
    sent_as = represent(stream(format="text", gzip=True), asked(accept_encoding=accept_encoding))
    assert sent_as.gzip is False
    assert sent_as.fields[2:] == [("Vary", "Accept-Encoding")]


def test_who_does_not_speak_of_encodings_is_sent_the_text() -> None:
    assert represent(stream(gzip=True), asked()).gzip is False


def test_format_and_coding_vary_each_for_itself() -> None:
    sent_as = represent(stream(gzip=True), asked(accept_encoding="gzip"))
    assert [value for name, value in sent_as.fields if name == "Vary"] == ["Accept", "Accept-Encoding"]


@pytest.mark.parametrize("name", ["Content-Encoding", "content-encoding"])
def test_what_the_handler_has_encoded_is_not_encoded_again(name: str) -> None:
    own = [(name, "br")]
    sent_as = represent(stream(format="bytes", gzip=True, headers=own), asked(accept_encoding="gzip, br"))
    assert sent_as.gzip is False
    assert sent_as.fields[2:] == own


# -- what is told of a failure -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (errors.HTTPError(402, "out of credit"), (402, "out of credit")),
        (errors.HTTPError(402), (402, "")),
        (errors.Unavailable("too many streams are open", 5), (503, "too many streams are open")),
        (errors.TargetTooLong("a request's target has at most 9 bytes here"),
         (414, "a request's target has at most 9 bytes here")),
        (errors.ProtocolError("no CONNECT here", 501), (501, "no CONNECT here")),
        (errors.ItemError("set", "cannot be sent"), (500, "")),
        (errors.LocalError("/etc/secret is missing"), (500, "")),
        (ValueError("/etc/secret is missing"), (500, "")),
    ],
)  # fmt: skip
def test_the_verdict_tells_what_the_client_may_know(error: Exception, expected: tuple[int, str]) -> None:
    assert verdict(error) == expected


TEXT = ("Content-Type", "text/plain; charset=utf-8")
JSON = ("Content-Type", "application/json; charset=utf-8")
VARY = ("Vary", "Accept")
ID = ("X-Request-Id", "abc-1")


def parts(answer: Response) -> tuple[int, list[tuple[str, str]], bytes]:
    return answer.status, [*pairs(answer.headers)], answer.body


def test_a_failure_is_a_line_of_text_with_the_requests_id() -> None:
    answer = failure(errors.NotFound("nothing is at /x"), "abc-1")
    assert parts(answer) == (404, [TEXT, ID, VARY], b"404 Not Found: nothing is at /x\n")


def test_for_who_asks_for_json_it_is_json() -> None:
    answer = failure(errors.NotFound("nothing is at /x"), "abc-1", "application/json")
    assert parts(answer) == (404, [JSON, ID, VARY], b'{"status":404,"error":"nothing is at /x"}\n')


@pytest.mark.parametrize("accept", [None, "", "*/*", "text/html", "text/plain, application/json;q=0.5"])
def test_for_others_it_is_text(accept: str | None) -> None:
    assert parts(failure(errors.NotFound(), "abc-1", accept))[1] == [TEXT, ID, VARY]


def test_a_failure_of_ours_tells_its_phrase_and_nothing_more() -> None:
    error = ZeroDivisionError("division of the secret by zero")
    assert failure(error, "abc-1").body == b"500 Internal Server Error\n"
    assert failure(error, "abc-1", "application/json").body == b'{"status":500,"error":"Internal Server Error"}\n'


@pytest.mark.parametrize("accept", [None, "application/json"])
def test_the_fields_of_the_error_go_along(accept: str | None) -> None:
    answer = failure(errors.Unavailable("too many", 5), "abc-1", accept)
    assert parts(answer)[1][1:] == [("Retry-After", "5"), ID, VARY]
    answer = failure(errors.MethodNotAllowed(["GET", "HEAD"]), "abc-1", accept)
    assert parts(answer)[1][1:] == [("Allow", "GET, HEAD"), ID, VARY]


@pytest.mark.parametrize("accept", [None, "*/*", "application/json"])
@pytest.mark.parametrize("error", [errors.NotAcceptable("this can be sent as ..."), errors.HTTPError(402), KeyError()])
def test_a_failure_depends_on_accept_and_says_so_once(error: Exception, accept: str | None) -> None:
    """Or a cache would give one client's JSON to another who reads text."""
    assert [value for name, value in parts(failure(error, "abc-1", accept))[1] if name == "Vary"] == ["Accept"]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["Cookie"], ["Cookie", "Accept"]),
        (["Accept-Encoding"], ["Accept-Encoding", "Accept"]),
        (["Accept"], ["Accept"]),
        (["Origin, accept"], ["Origin, accept"]),
        (["Origin,Accept ,Cookie"], ["Origin,Accept ,Cookie"]),
        (["Origin", "ACCEPT"], ["Origin", "ACCEPT"]),
        (["*"], ["*"]),
        ([""], ["", "Accept"]),
    ],
)
@pytest.mark.parametrize("name", ["Vary", "vary"])
def test_what_else_a_failure_depends_on_is_for_its_error_to_say(name: str, given: list[str], told: list[str]) -> None:
    answer = failure(errors.HTTPError(402, headers=[(name, value) for value in given]), "abc-1")
    assert [value for field, value in parts(answer)[1] if field.lower() == "vary"] == told


@pytest.mark.parametrize("error", [Overdue(), NoRoom("too many streams are open")])
def test_who_ran_out_of_time_or_found_no_room_is_told_when_to_come_back(error: Exception) -> None:
    answer = failure(error, "abc-1")
    assert answer.status == 503
    assert ("Retry-After", "5") in parts(answer)[1]


@pytest.mark.parametrize("detail", ["half a pair: \ud83d", "这", 'a "quote" and a \\', "two\nlines"])
def test_what_a_client_sent_can_be_told_whatever_it_is(detail: str) -> None:
    told = detail.replace("\ud83d", "?").replace("\n", "\\n")
    text = failure(errors.HTTPError(400, detail), "abc-1").body.decode()
    assert text == f"400 Bad Request: {told}\n"
    body = failure(errors.HTTPError(400, detail), "abc-1", "application/json").body
    assert body.isascii()
    assert body.count(b"\n") == 1
    assert json.loads(body) == {"status": 400, "error": told}


def messages(detail: str) -> set[str]:
    """What a client is told, in each of the ways to tell it."""
    error = errors.HTTPError(400, detail)
    text = failure(error, "abc-1").body.decode().removeprefix("400 Bad Request: ").removesuffix("\n")
    return {text, json.loads(failure(error, "abc-1", "application/json").body)["error"]}


def test_a_message_to_a_client_has_at_most_300_characters() -> None:
    assert messages("x" * 300) == {"x" * 300}
    assert messages("x" * 301) == messages("x" * 1_000_000) == {"x" * 299 + "…"}
    assert messages("\x00" * 301) == {("\\x00" * 100)[:299] + "…"}
    assert messages("\ud83d" * 301) == {"?" * 299 + "…"}


@pytest.mark.parametrize(
    ("bad", "shown"),
    [
        ("\x00", "\\x00"), ("\x07", "\\x07"), ("\t", "\\t"), ("\n", "\\n"), ("\r\n", "\\r\\n"), ("\x0b", "\\x0b"),
        ("\x1b", "\\x1b"), ("\x7f", "\\x7f"), ("\x80", "\\x80"), ("\x85", "\\x85"), ("\x9f", "\\x9f"),
        ("\u2028", "\\u2028"), ("\ud83d", "?"),
    ],
)  # fmt: skip
def test_a_message_to_a_client_is_a_line_without_control_characters(bad: str, shown: str) -> None:
    """It may quote a path, and so anything; halves of surrogate pairs cannot be sent at all."""
    assert messages(f"no {bad}[2J here") == {f"no {shown}[2J here"}
