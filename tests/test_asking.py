"""The options that `get` and `probe` have in common."""

from __future__ import annotations

import argparse
import io
import ssl
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trustme

from rawstream.asking import add_reach, add_request, header, leads_to, request, seconds, trust, url

pytestmark = pytest.mark.either_loop


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("http://a/b?c", "http://a/b?c"),
        ("HTTPS://a", "HTTPS://a"),
        ("a.example:8000/b", "http://a.example:8000/b"),
        (":8000/clock", "http://localhost:8000/clock"),
        ("/clock", "http://localhost/clock"),
        ("localhost/?next=ftp://x", "http://localhost/?next=ftp://x"),
    ],
)
def test_a_url_may_be_typed_without_what_goes_without_saying(typed: str, meant: str) -> None:
    assert url(typed) == meant


def test_a_header_is_a_name_and_a_value() -> None:
    assert header("Authorization: Bearer a:b ") == ("Authorization", "Bearer a:b")
    assert header("X-Empty:") == ("X-Empty", "")
    assert header("X: 这")[1].encode("latin-1") == "这".encode()


def test_a_time_is_in_seconds() -> None:
    assert [seconds(text) for text in ("3", "0.5", "1e3")] == [3.0, 0.5, 1000.0]


@pytest.mark.parametrize(
    ("read", "text", "line"),
    [
        (url, "ftp://x", "a URL begins with http:// or https://, not ftp://"),
        (header, "no colon", "a header is \"Name: value\", not 'no colon'"),
        (header, " : x", "a header is \"Name: value\", not ' : x'"),
        *((seconds, text, f"a time is a number of seconds above 0, not {text!r}")
          for text in ("0", "-1", "soon", "", "nan", "inf")),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_told_with_what_would_be_right(read: Callable[[str], Any], text: str, line: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError) as caught:
        read(text)
    assert str(caught.value) == line


@pytest.mark.parametrize(
    ("location", "full"),
    [
        ("/there", "http://a:8000/there"),
        ("there?x", "http://a:8000/b/there?x"),
        ("//other/", "http://other/"),
        ("https://other/x", "https://other/x"),
        ("http://[", "http://["),
    ],
)
def test_where_a_redirect_leads_is_told_in_full(location: str, full: str) -> None:
    assert leads_to("http://a:8000/b/c?d", location) == full


def options(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_request(parser)
    add_reach(parser)
    return parser.parse_args(arguments)


@pytest.mark.parametrize(
    ("arguments", "headers", "body"),
    [
        (["-H", "A: b"], [("A", "b")], None),
        (["-d", '{"a": 1}'], [("Content-Type", "application/json")], b'{"a": 1}'),
        (["-d", "a=1", "-d", "b"], [("Content-Type", "application/x-www-form-urlencoded")], b"a=1&b"),
        (["-d", ""], [("Content-Type", "application/x-www-form-urlencoded")], b""),
        (["-d", "x", "-H", "CONTENT-TYPE: text/plain"], [("CONTENT-TYPE", "text/plain")], b"x"),
    ],
)
def test_a_body_has_the_content_type_that_it_looks_like_or_was_given(
    arguments: list[str], headers: list[tuple[str, str]], body: bytes | None
) -> None:
    assert request(options(*arguments)) == (headers, body)


def test_a_body_may_come_from_a_file_or_from_stdin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "body").write_bytes(b"a\r\n\xff")
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"typed\n")))
    assert request(options("-d", f"@{tmp_path / 'body'}", "-d", "@-"))[1] == b"a\r\n\xff&typed\n"


def test_whom_to_trust_is_the_users_choice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(tmp_path / "authority.pem")
    trustme.CA().cert_pem.write_to_path(file)
    assert trust(options()) is None
    unchecked, trusting = trust(options("-k")), trust(options("--cacert", file))
    assert unchecked is not None
    assert unchecked.verify_mode is ssl.CERT_NONE
    assert trusting is not None
    assert trusting.verify_mode is ssl.CERT_REQUIRED
    assert len(trusting.get_ca_certs()) == 1
    with pytest.raises(SystemExit):
        options("-k", "--cacert", file)
    assert "not allowed with argument" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-d", "@/nowhere/body"], "@/nowhere/body cannot be read: No such file or directory"),
        (["-d", "@-"], "@- cannot be read: there is no standard input, it is closed"),
        (["--cacert", "/nowhere/ca.pem"], "/nowhere/ca.pem cannot be used: No such file or directory"),
        (["--cacert", __file__], f"{__file__} cannot be used: "),
    ],
)
def test_what_will_not_do_is_told(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", None)  # by `<&-`
    with pytest.raises(SystemExit):
        options(*arguments)
    assert words in capsys.readouterr().err
