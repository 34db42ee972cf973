"""Who may ask, and in whose name: hosts, origins, proxies. Decides from a request's head alone. No I/O, no asyncio.

Three dangers of a server that browsers and proxies reach, and a rule for each:

* DNS rebinding: a page's own name is made to point here, and the browser takes it for us. So `Host` must be a name
  that is ours. A server on loopback addresses has a rule by itself ("loopback"): there, such a name has a dot.
* Cross-site requests: any page may send a POST here with the user's cookies. So a method that changes something, from
  a page that is neither ours nor listed, is refused before the handler runs. A page of a listed origin may also read
  the answers (the CORS protocol, Fetch standard section 3.3).
* Forged addresses: anybody can send `X-Forwarded-For`. So it counts only where a trusted proxy has written it.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Literal, TypeAlias

from .errors import HTTPError, LocalError
from .fields import Headers
from .messages import RequestHead, Response

Fields: TypeAlias = tuple[tuple[str, str], ...]
Hosts: TypeAlias = tuple[str, ...] | Literal["loopback"] | None
Proxy: TypeAlias = IPv4Network | IPv6Network | Literal["unix"]
Client: TypeAlias = tuple[str, int] | None

_SAFE = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})  # RFC 9110 section 9.2.1
_MAX_AGE = 600  # seconds a browser keeps a preflight's answer; longer than 2 hours Chromium does not
_MAX_HOPS = 32  # proxies that a request is followed back through; real chains have 1 to 5, a forger's costs time
_DEFAULT_PORTS = {"http": 80, "https": 443}
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 section 5.6.2
# An origin as browsers write it (RFC 6454 section 6.2). A comma would be two joined fields.
_ORIGIN = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://"
    r"(?P<host>[A-Za-z0-9._~!$&'()*+;=%-]+|\[[0-9A-Fa-f:.]+\])(?::(?P<port>[0-9]{0,5}))?"
)
_HOST_NAME = re.compile(r"(?:\*\.)?[a-z0-9_-]+(?:\.[a-z0-9_-]+)*")
_ONE_LABEL = re.compile(r"[a-z0-9_-]+")
_IPV4_AND_PORT = re.compile(r"(?P<address>[0-9.]+)(?::(?P<port>[0-9]{1,5}))?")
_BRACKETED_AND_PORT = re.compile(r"\[(?P<address>[^\]]*)\](?::(?P<port>[0-9]{1,5}))?")


@dataclass(frozen=True, slots=True)
class Access:
    """The rules of one server. `Access.of` makes them from what a user writes; the values here are already checked.

    hosts: the names that are ours ("*.example.org" has the subdomains only); None for any; "loopback" for those that
    no stranger can own: IP addresses, localhost and its subdomains, names without a dot, none at all.
    origins: whose pages may send and read everything, with cookies (but for "null", which any page can make itself).
    proxies: whose word on the client's address and scheme is taken.
    """

    hosts: Hosts = None
    origins: tuple[str, ...] = ()
    proxies: tuple[Proxy, ...] = ()

    @classmethod
    def of(
        cls,
        hosts: Sequence[str] | Literal["loopback"] | None = None,
        origins: Sequence[str] = (),
        proxies: Sequence[str] = (),
    ) -> Access:
        """Check and normalise: hosts without ports ("*" is any), origins as "https://app.example" or "null", proxies
        as addresses, networks or "unix". Raises LocalError, which says what would be right."""
        if hosts is not None and hosts != "loopback":
            names = tuple(_checked_host(host) for host in _several(hosts, "hosts"))
            if not names:
                raise LocalError("an empty list of hosts would refuse everybody: name one, or leave the list out")
            hosts = None if "*" in names else names
        return cls(
            hosts,
            tuple(_checked_origin(origin) for origin in _several(origins, "origins")),
            tuple(_checked_proxy(proxy) for proxy in _several(proxies, "proxies")),
        )

    def peer(self, client: Client, tls: bool, headers: Headers) -> tuple[Client, Literal["http", "https"]]:
        """Who asks, and by which scheme: the connection's own peer, or who a trusted proxy says that it speaks for.

        client: the connection's peer, None on a Unix socket. X-Forwarded-For is read from the right, where the
        nearest proxy wrote, and the first that is not trusted is the client: what stands further left is its own
        word. What is no address ends the reading there. The port is 0 where a proxy names none.
        RFC 7239's Forwarded is not read: a proxy that writes one of the two passes the other on as the client sent it.
        """
        scheme: Literal["http", "https"] = "https" if tls else "http"
        if not self.trusts(client):
            return client, scheme
        for hop in reversed(headers.get("x-forwarded-for", "").rsplit(",", _MAX_HOPS)[-_MAX_HOPS:]):
            found = _forwarded(hop.strip())
            if found is None:
                break
            client = found
            if not self.trusts(client):
                break
        told = headers.get("x-forwarded-proto", "").rpartition(",")[2].strip().lower()
        return client, "https" if told == "https" else "http" if told == "http" else scheme

    def trusts(self, client: Client) -> bool:
        """Whether this peer is one of our proxies: then many clients come by the one address."""
        if not self.proxies:
            return False
        if client is None:
            return "unix" in self.proxies
        address = _address(client[0])
        return any(proxy != "unix" and address in proxy for proxy in self.proxies)

    def admit(self, head: RequestHead, scheme: str) -> Fields:
        """The fields that every answer to this request gets, so that its page may read it; scheme as from `peer`.

        Where origins are listed at all, that is `Vary: Origin` at least, or a cache would give one page's answer to
        another. Raises HTTPError: 421 for a host that is not ours; 403 for an unsafe method from a page of another
        origin that is not listed. Who sends no Origin is no page: all browsers send it with unsafe methods. But
        `Sec-Fetch-Site`, which no page can set, is the browser's own word on it and goes first: "same-origin" is let
        through (behind a proxy that rewrites Host, or speaks TLS, nothing else tells), and without an Origin
        "cross-site" and "same-site" are refused.
        """
        host = head.headers.get("host", "")
        if self.hosts is not None and not _is_ours(self.hosts, host):
            asked = f'the host "{host}"' if host else "a request without Host"
            cure = "whoever runs it can allow it (allowed_hosts, --allowed-host)"
            raise HTTPError(421, f"this server does not answer for {asked}; {cure}")
        origin = head.headers.get("origin")
        if origin is not None and self._lists(origin):
            return self._readable(origin)
        vary: Fields = (("Vary", "Origin"),) if self.origins else ()
        if head.method not in _SAFE:
            _refuse_cross_site(head, origin, f"{scheme}://{host}", vary)
        return vary

    def preflight(self, head: RequestHead) -> Response | None:
        """What a browser is answered that asks for a listed origin whether it may send a request; None for all others.

        Ask `admit` first, for the host. The answer is whole: it gets no fields of `admit`. (Fetch standard, section
        4.8 "CORS-preflight fetch": it needs neither the path nor the user, so no handler is asked.)
        """
        if head.method != "OPTIONS":
            return None
        origin, method = head.headers.get("origin"), head.headers.get("access-control-request-method")
        if origin is None or method is None or not self._lists(origin):
            return None
        fields = [
            field for field in self._readable(origin) if field[0] not in ("Vary", "Access-Control-Expose-Headers")
        ]
        if _TOKEN.fullmatch(method):
            fields.append(("Access-Control-Allow-Methods", method))
        asked = [name.strip() for name in head.headers.get("access-control-request-headers", "").split(",")]
        if names := ", ".join(name for name in asked if _TOKEN.fullmatch(name)):
            fields.append(("Access-Control-Allow-Headers", names))
        fields.append(("Access-Control-Max-Age", str(_MAX_AGE)))
        fields.append(("Vary", "Origin, Access-Control-Request-Method, Access-Control-Request-Headers"))
        return Response(204, fields)

    def _lists(self, origin: str) -> bool:
        return bool(self.origins) and (origin if origin == "null" else _normal_origin(origin)) in self.origins

    def _readable(self, origin: str) -> Fields:
        credentials = () if origin == "null" else (("Access-Control-Allow-Credentials", "true"),)
        return (
            ("Access-Control-Allow-Origin", origin),
            *credentials,
            ("Access-Control-Expose-Headers", "X-Request-Id"),
            ("Vary", "Origin"),
        )


# -- hosts -------------------------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=256)  # a server sees few values; reading an address takes 3 µs
def _is_ours(hosts: tuple[str, ...] | Literal["loopback"], host: str) -> bool:
    """Whether `host`, the value of a Host field, names one of `hosts`."""
    name = _host_name(host)
    if hosts == "loopback":
        known = not name or name.endswith(".localhost") or _address(name) is not None
        return known or _ONE_LABEL.fullmatch(name) is not None
    return name in hosts or any(
        pattern.startswith("*.") and name.endswith(pattern[1:]) and len(name) >= len(pattern) for pattern in hosts
    )


def _host_name(host: str) -> str:
    """A Host field's value without its port, comparable: in lower case, no dot at its end, IPv6 without brackets."""
    if bracketed := _BRACKETED_AND_PORT.fullmatch(host):
        address = _address(bracketed["address"])
        return host if address is None else str(address)
    return host.partition(":")[0].lower().removesuffix(".")


def _checked_host(host: str) -> str:
    if host == "*":
        return host
    address = _address(host[1:-1] if host.startswith("[") and host.endswith("]") else host)
    name = host.lower().removesuffix(".") if address is None else str(address)
    if address is None and not _HOST_NAME.fullmatch(name):
        raise LocalError(
            f'{host!r} is no host: write a name without scheme, port and path ("example.org", or "*.example.org" for '
            f'its subdomains; other scripts as "xn--..."), an IP address, or "*" for any'
        )
    return name


# -- origins -----------------------------------------------------------------------------------------------------------


def _normal_origin(text: str) -> str | None:
    """`text` as a comparable origin, in lower case and without the port that its scheme has anyway; None if none."""
    match = _ORIGIN.fullmatch(text)
    if match is None:
        return None
    scheme, host = match["scheme"].lower(), match["host"].lower()
    default = _DEFAULT_PORTS.get(scheme)
    port = int(match["port"]) if match["port"] else default
    if port is None or port == default:
        return f"{scheme}://{host}"
    return f"{scheme}://{host}:{port}" if 0 < port <= 65535 else None


def _refuse_cross_site(head: RequestHead, origin: str | None, own: str, vary: Fields) -> None:
    """Raises HTTPError 403 if a page that is not ours sends this."""
    site = head.headers.get("sec-fetch-site")
    if site == "same-origin" or (origin is None and site not in ("cross-site", "same-site")):
        return
    normal = None if origin is None else _normal_origin(origin)
    if normal is not None and normal == _normal_origin(own):
        return
    page = "a page of another site" if origin is None else f'a page of origin "{origin}"'
    cure = "whoever runs this server can allow it (allowed_origins, --allowed-origin)"
    if normal is not None and normal.partition("://")[2] == own.partition("://")[2].lower():
        cure = (
            f'this server is "{own}"; a proxy that speaks TLS for it is to be named (trusted_proxies, --trusted-proxy)'
        )
    raise HTTPError(403, f"{page} may not send {head.method} here; {cure}", vary)


def _checked_origin(origin: str) -> str:
    if origin == "null":
        return origin
    if origin == "*":
        raise LocalError(
            "every page of the web would be let to ask in its visitors' names: name the origins instead of '*', as in "
            '"https://app.example"'
        )
    if origin.lower().startswith("file:"):
        raise LocalError(f'a page from disk has the origin "null": write that, not {origin!r}')
    normal = _normal_origin(origin)
    if normal is None:
        raise LocalError(
            f"{origin!r} is no origin: write scheme, host and perhaps port, without a path, as in "
            f'"https://app.example" or "http://localhost:3000" (other scripts as "xn--..."); "null" is a page from disk'
        )
    return normal


# -- proxies -----------------------------------------------------------------------------------------------------------


def _address(text: str) -> IPv4Address | IPv6Address | None:
    """`text` as an address; an IPv4 address that was mapped into IPv6 as itself. None if it is none."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return (isinstance(address, IPv6Address) and address.ipv4_mapped) or address


def _forwarded(hop: str) -> tuple[str, int] | None:
    """One element of X-Forwarded-For: an address, perhaps with a port; IPv6 in brackets or not. None if it is none."""
    match = _IPV4_AND_PORT.fullmatch(hop) or _BRACKETED_AND_PORT.fullmatch(hop)
    address = _address(match["address"] if match else hop)
    if address is None or "%" in hop:  # a zone means something on its own machine only
        return None
    port = int(match["port"] or 0) if match else 0
    return (str(address), port) if port <= 65535 else None


def _checked_proxy(proxy: str) -> Proxy:
    if proxy == "unix":
        return "unix"
    try:
        network = ipaddress.ip_network(proxy)
    except ValueError as exc:
        raise LocalError(
            f'{proxy!r} is no proxy ({exc}): write an address ("10.0.0.7"), a network ("10.0.0.0/8", "fd00::/8"), or '
            f'"unix" for who comes by a Unix socket'
        ) from exc
    if isinstance(network, IPv6Network) and network.network_address.ipv4_mapped is not None and network.prefixlen >= 96:
        return IPv4Network((int(network.network_address) & 0xFFFFFFFF, network.prefixlen - 96))
    return network


def _several(given: Iterable[str], what: str) -> tuple[str, ...]:
    if isinstance(given, str):
        raise LocalError(f"{what} is a list of strings, as in [{given!r}], not one string")
    return tuple(given)


def is_loopback(name: object) -> bool:
    """A listening socket's name is one that only this machine can reach by TCP. (Who is behind a Unix socket is behind
    a proxy, which knows its own names.)"""
    return isinstance(name, tuple) and ipaddress.ip_address(name[0].partition("%")[0]).is_loopback
