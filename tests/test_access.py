"""Who may ask, and in whose name: hosts, origins, preflights, proxies."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_address

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from rawstream.access import Access
from rawstream.errors import HTTPError, LocalError
from rawstream.fields import Headers
from rawstream.messages import RequestHead

APP = "https://app.example"
VARY = ("Vary", "Origin")

steady = settings(derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def head(method: str = "GET", path: str = "/", **fields: str) -> RequestHead:
    """A request's head with `fields`, whose names have _ for -; Host is example.org unless told."""
    named = {"host": "example.org"} | {name.replace("_", "-"): value for name, value in fields.items()}
    return RequestHead(method, path, path, "", Headers(tuple(named.items())), "1.1")


def without_host(method: str = "GET") -> RequestHead:
    return RequestHead(method, "/", "/", "", Headers(), "1.0")


def admitted(access: Access, request: RequestHead, scheme: str = "http") -> bool:
    try:
        access.admit(request, scheme)
    except HTTPError:
        return False
    return True


def refusal(access: Access, request: RequestHead, scheme: str = "http") -> HTTPError:
    with pytest.raises(HTTPError) as caught:
        access.admit(request, scheme)
    return caught.value


# -- hosts -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host",
    [
        *["127.0.0.1", "127.0.0.1:8000", "127.0.0.1.", "192.168.1.9:80", "[::1]", "[::1]:8000", "[fe80::1]"],
        *["localhost", "LocalHost:8000", "localhost.", "app.localhost:3000", "APP.LOCALHOST."],
        *["x", "test", "my-host_1:1", "", ":8000"],
    ],
)
def test_on_loopback_names_that_no_stranger_can_own_are_ours(host: str) -> None:
    assert admitted(Access.of("loopback"), head(host=host))


@pytest.mark.parametrize(
    "host",
    [
        *["evil.example", "evil.example:8000", "evil..", "my.local", "[evil.example]", "[::1", "evil%2eexample"],
        *["127.0.0.1.nip.io", "127.1", "0x7f.0.0.1", "1.2.3.4.5"],
        *["localhost.evil.example", "evillocalhost.example", "a.evillocalhost", "localhost.localdomain"],
    ],
)
def test_on_loopback_every_other_name_with_a_dot_is_refused(host: str) -> None:
    assert refusal(Access.of("loopback"), head(host=host)).status == 421


@pytest.mark.parametrize("hosts", ["loopback", None])
def test_a_request_without_host_comes_from_no_browser(hosts: str | None) -> None:
    assert Access.of(hosts).admit(without_host("POST"), "http") == ()  # type: ignore[arg-type]


def test_where_hosts_are_named_a_request_without_host_is_refused() -> None:
    assert refusal(Access.of(["example.org"]), without_host()).detail == (
        "this server does not answer for a request without Host; whoever runs it can allow it "
        "(allowed_hosts, --allowed-host)"
    )


@pytest.mark.parametrize("host", ["example.org", "EXAMPLE.org", "example.org:8443", "example.org.", "example.org.:80"])
def test_a_named_host_is_ours_with_any_port_and_in_any_case(host: str) -> None:
    assert admitted(Access.of(["Example.ORG."]), head(host=host))


@pytest.mark.parametrize(
    "host", ["www.example.org", "xexample.org", "example.org.evil.example", "org", "127.0.0.1", "x"]
)
def test_others_are_not(host: str) -> None:
    assert refusal(Access.of(["example.org"]), head(host=host)).status == 421


@pytest.mark.parametrize(
    ("host", "is_ours"),
    [
        ("a.example.org", True),
        ("a.b.Example.org:1", True),
        ("example.org", False),
        ("aexample.org", False),
        (".example.org", False),
        ("a.example.org.evil.example", False),
    ],
)
def test_a_star_stands_for_subdomains(host: str, is_ours: bool) -> None:
    assert admitted(Access.of(["*.example.org"]), head(host=host)) == is_ours


@pytest.mark.parametrize("written", ["::1", "[::1]", "0:0:0:0:0:0:0:1"])
def test_an_ipv6_address_is_compared_as_an_address(written: str) -> None:
    access = Access.of([written])
    assert admitted(access, head(host="[::1]:8000"))
    assert admitted(access, head(host="[0:0::1]"))
    assert not admitted(access, head(host="[::2]"))


def test_without_hosts_any_is_ours() -> None:
    assert admitted(Access(), head(host="evil.example"))
    assert Access.of(["example.org", "*"]).hosts is None


def test_the_refusal_of_a_host_says_how_to_allow_it() -> None:
    error = refusal(Access.of("loopback"), head("POST", host="evil.example:8000", origin="http://evil.example:8000"))
    assert error.status == 421
    assert error.detail == (
        'this server does not answer for the host "evil.example:8000"; whoever runs it can allow it '
        "(allowed_hosts, --allowed-host)"
    )


# -- origins -----------------------------------------------------------------------------------------------------------

SAFE = ["GET", "HEAD", "OPTIONS", "TRACE"]
UNSAFE = ["POST", "PUT", "PATCH", "DELETE", "get", "PROPFIND"]
STRANGERS = ["https://evil.example", "null", "", "evil", "http://", "https://app.example/", "https://app.example, null"]


@pytest.mark.parametrize("method", SAFE)
@pytest.mark.parametrize("origin", STRANGERS)
def test_a_safe_method_is_never_refused_for_its_origin(method: str, origin: str) -> None:
    assert Access().admit(head(method, origin=origin), "http") == ()
    assert Access.of(origins=[APP]).admit(head(method, origin=origin), "http") == (VARY,)


@pytest.mark.parametrize("method", UNSAFE)
@pytest.mark.parametrize("origin", STRANGERS)
def test_an_unsafe_method_from_an_unlisted_origin_is_refused(method: str, origin: str) -> None:
    assert refusal(Access(), head(method, origin=origin)).headers == ()
    error = refusal(Access.of(origins=[APP]), head(method, origin=origin))
    assert (error.status, error.headers) == (403, (VARY,))


def test_the_refusal_of_an_origin_says_how_to_allow_it() -> None:
    assert refusal(Access(), head("POST", origin="https://evil.example")).detail == (
        'a page of origin "https://evil.example" may not send POST here; whoever runs this server can allow it '
        "(allowed_origins, --allowed-origin)"
    )


@pytest.mark.parametrize("method", [*SAFE, *UNSAFE])
def test_a_listed_origin_may_ask_and_read(method: str) -> None:
    assert Access.of(origins=["https://other.example", APP]).admit(head(method, origin=APP), "http") == (
        ("Access-Control-Allow-Origin", APP),
        ("Access-Control-Allow-Credentials", "true"),
        ("Access-Control-Expose-Headers", "X-Request-Id"),
        VARY,
    )


def test_null_is_listed_without_credentials_since_any_page_can_be_null() -> None:
    access = Access.of(origins=["null"])
    assert access.admit(head("POST", origin="null"), "http") == (
        ("Access-Control-Allow-Origin", "null"),
        ("Access-Control-Expose-Headers", "X-Request-Id"),
        VARY,
    )
    assert not admitted(access, head("POST", origin="NULL"))


def test_where_origins_are_listed_every_answer_varies_with_them() -> None:
    """Also that to who sends none: a cache would give it to a page that sends one."""
    access = Access.of(origins=[APP])
    assert access.admit(head(), "http") == (VARY,)
    assert access.admit(head("POST"), "http") == (VARY,)
    assert access.admit(head("POST", origin="http://example.org"), "http") == (VARY,)


@pytest.mark.parametrize(
    ("scheme", "host", "origin"),
    [
        ("http", "example.org", "http://example.org"),
        ("http", "example.org:80", "http://example.org"),
        ("http", "example.org", "http://example.org:80"),
        ("https", "example.org:443", "https://example.org"),
        ("https", "EXAMPLE.org", "https://example.org"),
        ("http", "127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("http", "[::1]:8000", "http://[::1]:8000"),
        ("http", "localhost:", "http://localhost"),
    ],
)
def test_our_own_page_may_send_what_it_likes(scheme: str, host: str, origin: str) -> None:
    assert Access().admit(head("POST", host=host, origin=origin), scheme) == ()


@pytest.mark.parametrize(
    ("scheme", "host", "origin"),
    [
        ("http", "example.org", "https://example.org"),
        ("https", "example.org", "http://example.org"),
        ("http", "example.org:8000", "http://example.org"),
        ("http", "example.org", "http://example.org:443"),
        ("https", "example.org", "https://example.org:80"),
        ("http", "example.org:8000", "http://example.org:8001"),
        ("http", "example.org", "http://www.example.org"),
        ("http", "", "http://"),
        ("http", "example.org:" + "9" * 5000, "http://example.org"),
        ("http", "example.org:99999", "http://example.org:99999"),
        ("http", "example.org:0", "http://example.org"),
    ],
)
def test_another_scheme_host_or_port_is_another_origin(scheme: str, host: str, origin: str) -> None:
    assert refusal(Access(), head("POST", host=host, origin=origin), scheme).status == 403


def test_behind_a_proxy_that_speaks_tls_the_refusal_names_the_cure() -> None:
    assert refusal(Access(), head("POST", origin="https://example.org")).detail == (
        'a page of origin "https://example.org" may not send POST here; this server is "http://example.org"; '
        "a proxy that speaks TLS for it is to be named (trusted_proxies, --trusted-proxy)"
    )


@pytest.mark.parametrize("origin", ["https://example.org", "https://public.example", "null"])
def test_the_browsers_own_word_that_the_page_is_ours_is_taken(origin: str) -> None:
    """No page can set Sec-Fetch-Site. "null" is what our own page's form sends under Referrer-Policy: no-referrer."""
    assert admitted(Access(), head("POST", origin=origin, sec_fetch_site="same-origin"))


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_the_browsers_word_that_the_page_is_another_counts_without_an_origin_too(site: str) -> None:
    assert refusal(Access(), head("POST", sec_fetch_site=site)).detail == (
        "a page of another site may not send POST here; whoever runs this server can allow it "
        "(allowed_origins, --allowed-origin)"
    )
    assert admitted(Access(), head("GET", sec_fetch_site=site))
    assert admitted(Access.of(origins=[APP]), head("POST", sec_fetch_site=site, origin=APP))


@pytest.mark.parametrize("site", ["none", "cross-site", "", "same-origin, cross-site", "SAME-ORIGIN"])
def test_nothing_else_in_sec_fetch_site_lets_another_origin_through(site: str) -> None:
    assert not admitted(Access(), head("POST", origin="https://evil.example", sec_fetch_site=site))


@pytest.mark.parametrize("fields", [{}, {"sec_fetch_site": "none"}, {"sec_fetch_site": "same-origin"}])
def test_who_is_no_page_of_another_site_may_send(fields: dict[str, str]) -> None:
    assert Access().admit(head("POST", **fields), "http") == ()


# Characters that origins are made of, and some that would be dangerous in them.
_odd = st.text(st.sampled_from("aAhtps:/.-0189[]@?#%*,;_ \t\r\n\"'é"), max_size=30)


@steady
@given(st.sampled_from(["", "http://", "https://", "null", APP, "https://app.example"]), _odd, st.sampled_from(UNSAFE))
@example(APP, ":443", "POST")
@example(APP, ":0443", "POST")
@example(APP, "", "POST")
def test_only_a_listed_origin_is_ever_let_to_read(start: str, rest: str, method: str) -> None:
    origin = start + rest
    access, request = Access.of(origins=[APP]), head(method, origin=origin)
    if origin.lower() in (APP, f"{APP}:", f"{APP}:443", f"{APP}:0443", f"{APP}:00443"):
        assert ("Access-Control-Allow-Origin", origin) in access.admit(request, "http")
    else:
        assert refusal(access, request).status == 403


# -- preflights --------------------------------------------------------------------------------------------------------


def preflight(origin: str = APP, method: str = "PUT", **fields: str) -> RequestHead:
    return head("OPTIONS", origin=origin, access_control_request_method=method, **fields)


def test_a_preflight_of_a_listed_origin_is_granted_what_it_asks_for() -> None:
    asked = preflight(access_control_request_headers="content-type,x-token, last-event-id")
    answer = Access.of(origins=[APP]).preflight(asked)
    assert answer is not None
    assert (answer.status, answer.body) == (204, b"")
    assert [*answer.headers] == [
        ("Access-Control-Allow-Origin", APP),
        ("Access-Control-Allow-Credentials", "true"),
        ("Access-Control-Allow-Methods", "PUT"),
        ("Access-Control-Allow-Headers", "content-type, x-token, last-event-id"),
        ("Access-Control-Max-Age", "600"),
        ("Vary", "Origin, Access-Control-Request-Method, Access-Control-Request-Headers"),
    ]


def test_a_preflight_from_disk_gets_no_credentials() -> None:
    answer = Access.of(origins=["null"]).preflight(preflight("null"))
    assert answer is not None
    assert [*answer.headers] == [
        ("Access-Control-Allow-Origin", "null"),
        ("Access-Control-Allow-Methods", "PUT"),
        ("Access-Control-Max-Age", "600"),
        ("Vary", "Origin, Access-Control-Request-Method, Access-Control-Request-Headers"),
    ]


@pytest.mark.parametrize(("method", "names"), [("P UT", "a b"), ("", ""), ("é", "x:y, (z)"), ("POST, PUT", " , ,,")])
def test_what_is_no_method_and_no_field_name_is_not_granted(method: str, names: str) -> None:
    answer = Access.of(origins=[APP]).preflight(preflight(method=method, access_control_request_headers=names))
    assert answer is not None
    given = dict(answer.headers)
    assert "Access-Control-Allow-Methods" not in given
    assert "Access-Control-Allow-Headers" not in given


def test_of_the_asked_field_names_those_that_are_some_are_granted() -> None:
    asked = preflight(access_control_request_headers="x-a, b c,, x-d")
    answer = Access.of(origins=[APP]).preflight(asked)
    assert answer is not None
    assert dict(answer.headers)["Access-Control-Allow-Headers"] == "x-a, x-d"


@pytest.mark.parametrize(
    "request_head",
    [
        preflight("https://evil.example"),
        preflight("null"),
        preflight(""),
        head("OPTIONS", origin=APP),
        head("OPTIONS", access_control_request_method="PUT"),
        head("GET", origin=APP, access_control_request_method="PUT"),
    ],
    ids=["another origin", "null", "no origin", "no method", "no Origin", "no OPTIONS"],
)
def test_all_others_are_left_to_the_handler(request_head: RequestHead) -> None:
    assert Access.of(origins=[APP]).preflight(request_head) is None


def test_without_origins_there_are_no_preflights() -> None:
    assert Access().preflight(preflight()) is None


# -- proxies -----------------------------------------------------------------------------------------------------------

PEER = ("10.0.0.7", 1234)
BEHIND = Access.of(proxies=["10.0.0.0/8", "fd00::/8", "unix"])


def forwarded(*values: str, proto: str | None = None) -> Headers:
    fields = [("X-Forwarded-For", value) for value in values]
    return Headers([*fields, *([] if proto is None else [("X-Forwarded-Proto", proto)])])


@pytest.mark.parametrize(
    ("value", "client"),
    [
        ("203.0.113.5", ("203.0.113.5", 0)),
        ("203.0.113.5:4711", ("203.0.113.5", 4711)),
        ("2001:db8::5", ("2001:db8::5", 0)),
        ("[2001:DB8:0::5]", ("2001:db8::5", 0)),
        ("[2001:db8::5]:4711", ("2001:db8::5", 4711)),
        ("::ffff:203.0.113.5", ("203.0.113.5", 0)),
        ("198.51.100.1, 203.0.113.5", ("203.0.113.5", 0)),
        ("198.51.100.1,203.0.113.5 , 10.0.0.8,\t10.9.9.9:80", ("203.0.113.5", 0)),
        ("198.51.100.1, ::ffff:10.0.0.8", ("198.51.100.1", 0)),
        ("10.0.0.9, [fd00::1]:80", ("10.0.0.9", 0)),
    ],
)
def test_the_first_address_from_the_right_that_is_no_trusted_proxy_is_the_client(
    value: str, client: tuple[str, int]
) -> None:
    assert BEHIND.peer(PEER, False, forwarded(value)) == (client, "http")


def test_repeated_fields_are_one_list() -> None:
    assert BEHIND.peer(PEER, False, forwarded("198.51.100.1", "203.0.113.5, 10.0.0.8"))[0] == ("203.0.113.5", 0)


@pytest.mark.parametrize(
    "garbage", ["", "unknown", "_hidden", "1.2.3", "1.2.3.4:", "1.2.3.4:x", "1.2.3.4:99999", "[::1", "::1]"]
)
@pytest.mark.parametrize(
    "more", ["", "fe80::1%eth0", "[1.2.3.4:5]", '"1.2.3.4"', "for=1.2.3.4", "01.2.3.4", "é", "[]:1"]
)
def test_what_is_no_address_ends_the_reading_and_the_last_good_one_counts(garbage: str, more: str) -> None:
    for bad in (garbage, more):
        assert BEHIND.peer(PEER, False, forwarded(bad))[0] == PEER
        assert BEHIND.peer(PEER, False, forwarded(f"198.51.100.1, {bad}, 10.0.0.8"))[0] == ("10.0.0.8", 0)


def test_without_the_field_the_proxy_itself_is_the_client() -> None:
    assert BEHIND.peer(PEER, True, Headers()) == (PEER, "https")


def test_a_proxy_on_a_unix_socket_is_trusted_if_that_is_said() -> None:
    headers = forwarded("203.0.113.5", proto="https")
    assert BEHIND.peer(None, False, headers) == (("203.0.113.5", 0), "https")
    assert BEHIND.peer(None, False, Headers()) == (None, "http")
    assert Access.of(proxies=["10.0.0.0/8"]).peer(None, False, headers) == (None, "http")


@pytest.mark.parametrize("mapped", ["::ffff:10.0.0.7", "::FFFF:10.0.0.7"])
def test_a_proxy_that_comes_to_a_dual_stack_socket_is_known(mapped: str) -> None:
    assert BEHIND.peer((mapped, 1), False, forwarded("203.0.113.5"))[0] == ("203.0.113.5", 0)
    assert Access.of(proxies=["::ffff:10.0.0.0/104"]).proxies == (IPv4Network("10.0.0.0/8"),)


def test_who_is_one_of_our_proxies() -> None:
    assert BEHIND.trusts(PEER)
    assert BEHIND.trusts(("::ffff:10.0.0.7", 1))
    assert BEHIND.trusts(None)
    assert not BEHIND.trusts(("203.0.113.5", 1))
    assert not Access.of(proxies=["10.0.0.0/8"]).trusts(None)
    assert not Access().trusts(PEER)


def test_a_client_with_a_zone_is_compared_by_its_address() -> None:
    access = Access.of(proxies=["fe80::/10"])
    assert access.peer(("fe80::1%eth0", 1), False, forwarded("203.0.113.5"))[0] == ("203.0.113.5", 0)


@pytest.mark.parametrize(
    ("proto", "tls", "scheme"),
    [
        ("https", False, "https"),
        ("HTTPS", False, "https"),
        ("http", True, "http"),
        ("http, https", False, "https"),
        ("https, http", False, "http"),
        ("https, ", False, "http"),
        ("wss", False, "http"),
        ("wss", True, "https"),
        ("", True, "https"),
    ],
)
def test_the_scheme_is_what_the_nearest_proxy_says(proto: str, tls: bool, scheme: str) -> None:
    assert BEHIND.peer(PEER, tls, forwarded("203.0.113.5", proto=proto)) == (("203.0.113.5", 0), scheme)


def test_a_forged_chain_is_not_followed_without_end() -> None:
    chain = ", ".join(["203.0.113.5", *(f"10.1.{n // 250}.{n % 250}" for n in range(1000))])
    assert BEHIND.peer(PEER, False, forwarded(chain))[0] == ("10.1.3.218", 0)  # the 32nd from the right
    assert BEHIND.peer(PEER, False, forwarded("203.0.113.5, " + "10.1.1.1, " * 30 + "10.1.1.1"))[0] == (
        "203.0.113.5",
        0,
    )


_hops = st.one_of(st.ip_addresses().map(str), st.sampled_from(["10.0.0.8", "unknown", "", "[::1]:80"]), _odd)
_values = st.lists(_hops, max_size=6).map(", ".join)
_headers = st.lists(
    st.tuples(st.sampled_from(["X-Forwarded-For", "x-forwarded-proto", "Forwarded", "X-Real-IP", "Host"]), _values),
    max_size=5,
).map(Headers)


@steady
@given(
    st.ip_addresses().filter(lambda address: all(address not in each for each in BEHIND.proxies if each != "unix")),
    st.booleans(),
    _headers,
)
def test_nobody_but_a_trusted_proxy_can_change_an_address_or_a_scheme(
    address: object, tls: bool, headers: Headers
) -> None:
    client = (str(address), 1)
    if str(address).lower().startswith("::ffff:"):
        return  # perhaps a trusted IPv4 address
    assert BEHIND.peer(client, tls, headers) == (client, "https" if tls else "http")
    assert Access().peer(PEER, tls, headers) == (PEER, "https" if tls else "http")


@steady
@given(
    _values,
    st.ip_addresses(v=4, network="203.0.113.0/24"),
    st.lists(st.ip_addresses(v=4, network="10.0.0.0/8"), max_size=3),
)
def test_what_a_client_writes_before_it_reaches_a_trusted_proxy_never_counts(
    forged: str, real: object, via: list[object]
) -> None:
    """Each proxy appends who it was asked by; so the real client is the one whom the first proxy wrote down."""
    chain = ", ".join([forged, str(real), *map(str, via)])
    assert BEHIND.peer(PEER, False, forwarded(chain))[0] == (str(real), 0)


@steady
@given(_headers)
def test_a_client_is_always_an_address_and_a_port(headers: Headers) -> None:
    client, scheme = BEHIND.peer(PEER, False, headers)
    assert client is not None
    ip_address(client[0])
    assert 0 <= client[1] <= 65535
    assert scheme in ("http", "https")


# -- what is configured ------------------------------------------------------------------------------------------------


def test_what_is_written_is_kept_in_one_comparable_form() -> None:
    access = Access.of(
        ["Example.ORG.", "*.Example.org", "[::1]", "10.0.0.1"],
        ["HTTPS://App.Example:443", "http://localhost:3000", "http://[::1]:80", "chrome-extension://abc", "null"],
        ["10.0.0.7", "10.0.0.0/8", "fd00::/8", "unix"],
    )
    assert access == Access(
        ("example.org", "*.example.org", "::1", "10.0.0.1"),
        (APP, "http://localhost:3000", "http://[::1]", "chrome-extension://abc", "null"),
        (IPv4Network("10.0.0.7/32"), IPv4Network("10.0.0.0/8"), IPv6Network("fd00::/8"), "unix"),
    )
    assert Access.of() == Access()


@pytest.mark.parametrize(
    "host",
    [
        *["https://example.org", "example.org:8000", "example.org/", "*example.org", "*.*.org", "a b", "exämple.org"],
        *["[::1]:80", "[example.org]", "", ".", "..", "a..b"],
    ],
)
def test_what_is_no_host_is_refused_with_what_would_be_right(host: str) -> None:
    with pytest.raises(LocalError) as caught:
        Access.of([host])
    assert str(caught.value) == (
        f'{host!r} is no host: write a name without scheme, port and path ("example.org", or "*.example.org" for its '
        f'subdomains; other scripts as "xn--..."), an IP address, or "*" for any'
    )


def test_an_empty_list_of_hosts_is_refused() -> None:
    with pytest.raises(LocalError, match="an empty list of hosts would refuse everybody"):
        Access.of([])


@pytest.mark.parametrize(
    "origin",
    [
        *["https://app.example/", "https://app.example/x", "app.example", "https://", "https://a:b@c", "https://x?y"],
        *["https://x:99999", "https://x:0", "https://x:123456", "https://exämple.org", "NULL", "", " https://x"],
        "https://a,https://b",
    ],
)
def test_what_is_no_origin_is_refused_with_what_would_be_right(origin: str) -> None:
    with pytest.raises(LocalError) as caught:
        Access.of(origins=[origin])
    assert str(caught.value) == (
        f"{origin!r} is no origin: write scheme, host and perhaps port, without a path, as in "
        f'"https://app.example" or "http://localhost:3000" (other scripts as "xn--..."); "null" is a page from disk'
    )


def test_every_origin_at_once_is_refused_with_the_reason() -> None:
    with pytest.raises(LocalError) as caught:
        Access.of(origins=["*"])
    assert str(caught.value) == (
        "every page of the web would be let to ask in its visitors' names: name the origins instead of '*', as in "
        '"https://app.example"'
    )


@pytest.mark.parametrize("origin", ["file://", "file:///home/me/demo.html", "FILE://"])
def test_a_page_from_disk_is_called_null(origin: str) -> None:
    with pytest.raises(LocalError, match='a page from disk has the origin "null"'):
        Access.of(origins=[origin])


@pytest.mark.parametrize("proxy", ["*", "proxy.example", "10.0.0.1/8", "10.0.0.0/33", "10.0.0.7:80", "", "Unix"])
def test_what_is_no_proxy_is_refused_with_what_would_be_right(proxy: str) -> None:
    with pytest.raises(LocalError) as caught:
        Access.of(proxies=[proxy])
    assert str(caught.value).startswith(f"{proxy!r} is no proxy (")
    assert str(caught.value).endswith(
        '): write an address ("10.0.0.7"), a network ("10.0.0.0/8", "fd00::/8"), '
        'or "unix" for who comes by a Unix socket'
    )


@pytest.mark.parametrize("what", ["hosts", "origins", "proxies"])
def test_one_string_is_not_taken_for_a_list(what: str) -> None:
    with pytest.raises(LocalError) as caught:
        Access.of(**{what: "x.example"})
    assert str(caught.value) == f"{what} is a list of strings, as in ['x.example'], not one string"
