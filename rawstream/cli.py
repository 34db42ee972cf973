"""`python -m rawstream`: the demo, or `serve module:handler`; and what goes wrong told in one line.

Exit status: 0 after an orderly end, 2 for anything that kept the server from starting.
"""

from __future__ import annotations

import argparse
import asyncio
import errno
import importlib
import logging
import operator
import os
import ssl
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any, NoReturn, TypeVar

from . import Limits, Timeouts, __version__, serve
from .errors import RawstreamError
from .messages import Handler

_HOST, _PORT = "127.0.0.1", 8000
_DESCRIPTION = "Stream from async generators over HTTP/1.1. Without a command: the demo, with its page at /."

T = TypeVar("T", Limits, Timeouts)


class _Failed(Exception):
    """What keeps the server from starting, as a line for a person."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    options = _parser().parse_args(arguments)
    _set_up_logs(options)
    try:
        options.limits, options.timeouts = _settings(Limits, options), _settings(Timeouts, options)
        handler = _handler(options.handler)
        with asyncio.Runner(loop_factory=_loop_factory(options.loop)) as runner:
            runner.run(_run(handler, options))
    except _Failed as exc:
        return _say("rawstream: " + " ".join(str(exc).splitlines()), 2)
    except KeyboardInterrupt:
        return 130  # a Ctrl-C before the server had taken the signal
    return 0


def _say(line: str, status: int = 0) -> int:
    print(line, file=sys.stderr, flush=True)
    return status


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line, without the usage that argparse puts before it."""
        self.exit(2, f"{self.prog}: {message} (--help shows all options)\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser("python -m rawstream", description=_DESCRIPTION)
    parser.add_argument("--version", action="version", version=f"rawstream {__version__}")
    parser.set_defaults(handler=None)
    _add_options(parser)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    command = commands.add_parser("serve", help="serve a handler of yours", description="Serve a handler of yours.")
    command.add_argument("handler", metavar="MODULE:HANDLER", help="a coroutine function, async generator or Router")
    _add_options(command, argparse.SUPPRESS)  # an option that stands before the command keeps its value
    return parser


def _add_options(parser: argparse.ArgumentParser, otherwise: Any = None) -> None:
    def add(group: Any, name: str, default: Any = None, **how: Any) -> None:
        group.add_argument(name, default=default if otherwise is None else otherwise, **how)

    listen = parser.add_argument_group("where to listen")
    add(listen, "--host", _HOST, type=_host, help=f"address or name (default: {_HOST})")
    add(listen, "--port", _PORT, type=_port, help=f"0 takes a free one (default: {_PORT})")
    add(listen, "--uds", metavar="PATH", help="a Unix socket instead")
    add(listen, "--fd", type=int, metavar="N", help="an inherited listening socket instead")
    add(listen, "--certfile", metavar="FILE", help="serve HTTPS with this certificate chain (PEM)")
    add(listen, "--keyfile", metavar="FILE", help="its private key, if it is in a file of its own")
    run = parser.add_argument_group("how to run")
    loops = ("auto", "asyncio", "uvloop")
    add(
        run, "--loop", "auto", choices=loops, help="event loop; auto (default): uvloop if it is installed, else asyncio"
    )
    add(run, "--access-log", False, action="store_true", help="a line for each request, to stderr")
    add(run, "--wire", False, action="store_true", help="every byte in and out, with time and direction, to stderr")
    # Each setting is an option, so that --help shows them all with their defaults.
    for kind, title in ((Limits, "limits, in bytes (headers: a count)"), (Timeouts, "timeouts, in seconds")):
        group = parser.add_argument_group(title)
        for field in fields(kind):
            name = f"--{kind.__name__.lower()[:-1]}-{field.name.replace('_', '-')}"
            read = type(field.default)
            add(group, name, field.default, type=read, metavar="N", help=f"(default: {field.default})")


def _host(text: str) -> str:
    if text:
        return text
    raise argparse.ArgumentTypeError("a host is a name or an address; 0.0.0.0 and :: stand for all of them")


def _port(text: str) -> int:
    if text.isascii() and text.isdigit() and int(text) <= 65535:
        return int(text)
    raise argparse.ArgumentTypeError(f"a port is a number from 0 to 65535, not {text!r}")


def _settings(kind: type[T], options: argparse.Namespace) -> T:
    prefix = kind.__name__.lower()[:-1]
    try:
        return kind(**{field.name: getattr(options, f"{prefix}_{field.name}") for field in fields(kind)})
    except ValueError as exc:
        raise _Failed(str(exc)) from exc


def _set_up_logs(options: argparse.Namespace) -> None:
    for name, level, form in (
        ("rawstream", logging.INFO, "%(levelname)s: %(message)s"),
        ("rawstream.access", logging.INFO if options.access_log else logging.WARNING, "%(message)s"),
        ("rawstream.wire", logging.DEBUG if options.wire else logging.WARNING, "%(message)s"),
    ):
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter(form))
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(level)
        logger.propagate = False


def _handler(name: str | None) -> Handler:
    """The demo's router, or what MODULE:HANDLER names. Raises _Failed."""
    if name is None:
        from .demo import router

        return router
    module_name, colon, attribute = name.partition(":")
    if not colon or not attribute or not all(part.isidentifier() for part in module_name.split(".")):
        raise _Failed(f"name a handler as module:handler, as in 'serve mymodule:router', not {name!r}")
    sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as exc:
        if exc.name is not None and (module_name == exc.name or module_name.startswith(exc.name + ".")):
            raise _Failed(f"there is no module {exc.name!r} in {os.getcwd()} or among the installed ones") from exc
        raise _Failed(f"module {module_name!r} cannot be imported: {exc}{_where(exc)}") from exc
    except (Exception, SystemExit) as exc:
        raise _Failed(f"module {module_name!r} cannot be imported: {type(exc).__name__}: {exc}{_where(exc)}") from exc
    try:
        handler = operator.attrgetter(attribute)(module)
    except AttributeError as exc:
        raise _Failed(f"module {module_name!r} has no {attribute!r}") from exc
    if not callable(handler):
        raise _Failed(f"{name} is no handler but a {type(handler).__name__}: a function or a Router is one")
    return handler  # type: ignore[no-any-return]


def _where(exc: BaseException) -> str:
    """The last line of the user's that was at work, not of what it called here or of the import machinery."""
    frames = traceback.extract_tb(exc.__traceback__)
    ours = (os.path.dirname(__file__), os.path.dirname(importlib.__file__), "<frozen")
    users = [frame for frame in frames if not frame.filename.startswith(ours)]
    return f" ({users[-1].filename}, line {users[-1].lineno})" if users and not isinstance(exc, SyntaxError) else ""


def _tls(options: argparse.Namespace) -> ssl.SSLContext | None:
    if options.certfile is None:
        if options.keyfile is not None:
            raise _Failed("--keyfile needs --certfile")
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2  # RFC 9325 section 3.1.1: older ones must not be used
    try:
        context.load_cert_chain(options.certfile, options.keyfile, password=_no_password)
    except (OSError, ssl.SSLError) as exc:
        raise _Failed(f"the certificate or its key cannot be read: {exc}") from exc
    return context


def _no_password() -> str:
    raise _Failed("the private key is encrypted: give one that is not, since nobody may be there to type a password")


def _loop_factory(choice: str) -> Callable[[], asyncio.AbstractEventLoop]:
    if choice != "asyncio":
        try:
            import uvloop

            return uvloop.new_event_loop
        except ImportError as exc:
            if choice == "uvloop":
                raise _Failed("uvloop is not installed: pip install 'rawstream[fast]', or --loop asyncio") from exc
    return asyncio.SelectorEventLoop


async def _run(handler: Handler, options: argparse.Namespace) -> None:
    limits, timeouts, context = options.limits, options.timeouts, _tls(options)
    try:
        server = await serve(
            handler, options.host, options.port, unix=options.uds, fd=options.fd,
            ssl=context, limits=limits, timeouts=timeouts, signals=True,
        )  # fmt: skip
    except (OSError, RawstreamError) as exc:
        raise _Failed(f"cannot listen on {_asked(options)}: {_reason(exc)}") from exc
    loop = type(asyncio.get_running_loop()).__module__.partition(".")[0]
    where = ", ".join(_url(address, context is not None) for address in server.addresses)
    _say(f"rawstream {__version__} listening on {where} ({loop})")
    await server.closing.wait()
    if server.busy:
        count = f"{server.busy} open connection" + ("s" if server.busy > 1 else "")
        _say(f"closing: waiting up to {timeouts.grace:g} s for {count}; Ctrl-C again cuts")
    await server.wait_closed()


def _asked(options: argparse.Namespace) -> str:
    if options.fd is not None:
        return f"file descriptor {options.fd}"
    return str(options.uds) if options.uds is not None else f"{options.host}:{options.port}"


def _reason(exc: Exception) -> str:
    if isinstance(exc, OSError) and exc.errno == errno.EADDRINUSE:
        return "it is in use already; choose another one, or stop who uses it"
    return (exc.strerror if isinstance(exc, OSError) else None) or str(exc)


def _url(address: tuple[str, int] | str, tls: bool) -> str:
    if isinstance(address, str):
        return f"unix:{address}"
    host, port = address
    return f"{'https' if tls else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"
