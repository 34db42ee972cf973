"""What the command line's user asks for: the options, their values, and whether they go together. Starts nothing."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields
from itertools import zip_longest
from typing import Any, NoReturn, TypeVar, get_args, get_type_hints

from . import Hub, Limits, Timeouts, __version__
from .access import Access
from .channels.http import checked_token
from .config import explained
from .errors import LocalError

HOST, PORT = "127.0.0.1", 8000
_DESCRIPTION = "Stream from async generators over HTTP/1.1. Without a command: the demo, with its page at /."
_ACCESS_LOGS = ("common", "json")
_TOOLS = {
    "get": "print a stream as it comes",
    "probe": "measure how a stream arrives, and say who holds it back",
}
"""The commands that ask a server, each a module with `add_options(parser)` and `main(options)`."""
_FOR_THE_DEMO = ("store", "publish_token", "subscribe_token", "allow_open_publish")

T = TypeVar("T", Limits, Timeouts)


class Failed(Exception):
    """What keeps the server from starting, as a line for a person."""


def read(arguments: Sequence[str]) -> argparse.Namespace:
    """The options as they are given; `tool` is what a command that asks a server runs, and None for a server.

    Ends the process with status 2, and one line, if they cannot be read.
    """
    parser = _parser(arguments)
    options = parser.parse_args(_spelled_out(arguments))
    if options.tool is not None and arguments[0] not in _TOOLS:
        tool = next(name for name in _TOOLS if name in arguments)
        parser.error(
            f"{arguments[0]} is for a server, and {tool} is none: write {tool} first, and its own options then"
        )
    return options


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line, without the usage that argparse puts before it."""
        if handler := re.match("argument COMMAND: invalid choice: '([^']+:[^']+)'", message):
            message = f"there is no command {handler[1]}; did you mean: serve {handler[1]}"
        self.exit(2, f"{self.prog}: {message} (--help shows all options)\n")


class _Command(_Parser):
    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """What is not known is told here: argparse would leave it to the parser above, which has other options."""
        options, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return options, unknown


def _parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    # No abbreviations here: an option of a command would be taken for one of the server's.
    parser = _Parser("python -m rawstream", description=_DESCRIPTION, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"rawstream {__version__}")
    parser.set_defaults(handler=None, tool=None)
    _add_options(parser)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", parser_class=_Command)
    command = commands.add_parser("serve", help="serve a handler of yours", description="Serve a handler of yours.")
    command.add_argument("handler", metavar="MODULE:HANDLER", help="a coroutine function, async generator or Router")
    _add_options(command, argparse.SUPPRESS)  # an option that stands before the command keeps its value
    for name, what in _TOOLS.items():
        command = commands.add_parser(name, help=what, description=f"{what[0].upper()}{what[1:]}.")
        if name in arguments:
            _complete(name, command)
    return parser


def _complete(name: str, command: argparse.ArgumentParser) -> None:
    """Add a tool's options. It is imported only now that it is named."""
    if name == "get":
        from .get import add_options, main
    else:
        from .probe import add_options, main
    add_options(command)
    command.set_defaults(tool=main)


def _spelled_out(arguments: Sequence[str]) -> list[str]:
    """argparse would take the command that follows a bare --access-log for its format."""
    return [
        f"{argument}={_ACCESS_LOGS[0]}" if argument == "--access-log" and then == "serve" else argument
        for argument, then in zip_longest(arguments, arguments[1:], fillvalue="")
    ]


def _add_options(parser: argparse.ArgumentParser, otherwise: Any = None) -> None:
    def add(group: Any, name: str, default: Any = None, **how: Any) -> None:
        group.add_argument(name, default=default if otherwise is None else otherwise, **how)

    listen = parser.add_argument_group("where to listen")
    add(listen, "--host", type=_host, help=f"address or name (default: {HOST})")
    add(listen, "--port", type=_port, help=f"0 takes a free one (default: {PORT})")
    add(listen, "--uds", metavar="PATH", help="a Unix socket instead")
    add(listen, "--fd", type=int, metavar="N", help="an inherited listening socket instead (systemd's are found)")
    add(listen, "--certfile", metavar="FILE", help="serve HTTPS with this certificate chain (PEM)")
    add(listen, "--keyfile", metavar="FILE", help="its private key, if not in the same file; SIGHUP loads both anew")
    ask = parser.add_argument_group("who may ask (each may be given several times)")
    for name, metavar, what in (
        ("--allowed-host", "NAME", "a name in Host (default: any; on loopback addresses those without a dot, and IPs)"),
        ("--allowed-origin", "ORIGIN", "whose pages may read, as in https://app.example (demo without --store: null)"),
        ("--trusted-proxy", "ADDRESS", "whose X-Forwarded-For counts: an address, a network, or unix (default: none)"),
    ):
        dest = name[2:].replace("-", "_") + ("" if otherwise is None else "_too")
        add(ask, name, action="append", dest=dest, metavar=metavar, help=what)
    demo = parser.add_argument_group("the demo's channels and jobs (a handler of yours has its own Hub)")
    store_help = "where they are kept: memory: (default), sqlite:///file, or redis://host:port/db"
    add(demo, "--store", metavar="URL", help=store_help)
    for who in ("publish", "subscribe"):
        token_help = f"who may {who} (better: in the environment, {_variable(who)}, since ps shows arguments)"
        add(demo, f"--{who}-token", metavar="TOKEN", help=token_help)
    open_help = "let everybody publish, also from other machines"
    add(demo, "--allow-open-publish", False, action="store_true", help=open_help)
    run = parser.add_argument_group("how to run")
    loops = ("auto", "asyncio", "uvloop")
    loop_help = "event loop; auto (default): uvloop if it is installed, else asyncio"
    add(run, "--loop", "auto", choices=loops, help=loop_help)
    add(run, "--workers", 1, type=_workers, metavar="N", help="processes that serve (default: 1)")
    add(run, "--is-worker", help=argparse.SUPPRESS)  # what the parent hands over, see workers.Worker
    log_help = "a line for each request, to stderr; alone: common"
    add(run, "--access-log", nargs="?", const=_ACCESS_LOGS[0], choices=_ACCESS_LOGS, help=log_help)
    add(run, "--wire", False, action="store_true", help="every byte in and out (tokens too), with time and direction")
    # Each setting is an option, so that --help shows them all with their defaults.
    for kind, title in ((Limits, "limits (sizes in bytes)"), (Timeouts, "timeouts, in seconds")):
        group, hints, texts = parser.add_argument_group(title), get_type_hints(kind), explained(kind)
        for field in fields(kind):
            read = int if int in (hints[field.name], *get_args(hints[field.name])) else float
            shown = "none" if field.default is None else field.default
            told = f"{texts.get(field.name, '')} (default: {shown})".replace("%", "%%")
            add(group, _option(kind, field.name), field.default, type=read, metavar="N", help=told)


def _option(kind: type, field: str) -> str:
    return f"--{kind.__name__.lower()[:-1]}-{field.replace('_', '-')}"


def _variable(who: str) -> str:
    return f"RAWSTREAM_{who.upper()}_TOKEN"


def _host(text: str) -> str:
    if text:
        return text
    raise argparse.ArgumentTypeError("a host is a name or an address; 0.0.0.0 and :: stand for all of them")


def _port(text: str) -> int:
    if text.isascii() and text.isdigit() and int(text) <= 65535:
        return int(text)
    raise argparse.ArgumentTypeError(f"a port is a number from 0 to 65535, not {text!r}")


def _workers(text: str) -> int:
    if text.isascii() and text.isdigit() and int(text) > 0:
        return int(text)
    raise argparse.ArgumentTypeError(f"a number of processes is 1 or more, not {text!r}")


def check(options: argparse.Namespace, environment: Mapping[str, str] = os.environ) -> None:
    """Add `limits`, `timeouts` and `access` (arguments of `serve`), and `hub` and `tokens` (arguments of the demo's
    `build`; None for a handler), and see that all goes together. Raises Failed."""
    options.limits, options.timeouts = _settings(Limits, options), _settings(Timeouts, options)
    hosts, origins, proxies = (
        _all_given(options, name) for name in ("allowed_host", "allowed_origin", "trusted_proxy")
    )
    if options.handler is None and options.store is None and not origins:
        # The demo's page works from disk too, and that is its origin then. So it is of any page that frames itself in a
        # sandbox: nothing that is kept shall be open to those.
        origins = ["null"]
    options.access = {"allowed_hosts": hosts or None, "allowed_origins": origins, "trusted_proxies": proxies}
    try:
        Access.of(hosts or None, origins, proxies)
    except LocalError as exc:
        raise Failed(str(exc)) from exc
    if options.keyfile is not None and options.certfile is None:
        raise Failed("--keyfile needs --certfile")
    options.hub = options.tokens = None
    if options.handler is None:
        _check_channels(options, environment)
    elif given := [name for name in _FOR_THE_DEMO if getattr(options, name) not in (None, False)]:
        raise Failed(f"--{given[0].replace('_', '-')} is for the demo: a handler of yours makes its own Hub")


def _check_channels(options: argparse.Namespace, environment: Mapping[str, str]) -> None:
    try:
        options.hub = Hub("memory:" if options.store is None else options.store)
    except LocalError as exc:
        raise Failed(str(exc)) from exc
    if options.workers > 1 and not options.hub.shared:
        raise Failed(
            f"with --workers {options.workers}, channels and jobs need a store that processes can share: "
            f"--store redis://host:port/db"
        )
    options.tokens = {f"{who}_token": _token(options, environment, who) for who in ("publish", "subscribe")}


def _token(options: argparse.Namespace, environment: Mapping[str, str], who: str) -> str | None:
    """A secret that was given. An empty one is refused: it may be a variable that was to hold one."""
    given, name = getattr(options, f"{who}_token"), f"--{who}-token"
    if given is None:
        given, name = environment.get(_variable(who)), _variable(who)
    try:
        return None if given is None else checked_token(given)
    except LocalError as exc:
        raise Failed(f"{name}: {exc}") from exc


def check_place(options: argparse.Namespace, activated: list[int]) -> None:
    """Add `descriptors`, those to listen on: that of --fd, or systemd's. Raises Failed for two places at once."""
    options.descriptors = activated if options.fd is None else [options.fd]
    ways = [f"--{name}" for name in ("fd", "uds", "host", "port") if getattr(options, name) is not None]
    if activated and options.fd is None:
        ways.insert(0, "LISTEN_FDS")
    if len(ways) > 1 and ways != ["--host", "--port"]:
        raise Failed(f"{ways[0]} and {ways[1]} exclude each other: each says where to listen")


def _all_given(options: argparse.Namespace, name: str) -> list[str]:
    """The values before the command and those after it."""
    return [*(getattr(options, name) or []), *(getattr(options, f"{name}_too", None) or [])]


def _settings(kind: type[T], options: argparse.Namespace) -> T:
    prefix = kind.__name__.lower()[:-1]
    try:
        return kind(**{field.name: getattr(options, f"{prefix}_{field.name}") for field in fields(kind)})
    except ValueError as exc:
        name, _, rest = str(exc).partition(" ")
        raise Failed(f"{_option(kind, name.rpartition('.')[2])} {rest}") from exc
