"""`python -m rawstream`: the demo, `serve module:handler`, or a tool; and what goes wrong told in one line.

Exit status: 0 after an orderly end, 1 if handlers or workers had to be left or killed, 2 for anything that kept the
server from starting.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import errno
import importlib
import logging
import operator
import os
import re
import resource
import signal
import socket
import ssl
import sys
import traceback
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from . import Hub, __version__, observe, serve, sockets
from .access import is_loopback
from .channels.hub import close_all
from .ending import wind_up
from .errors import RawstreamError, StoreUnavailable
from .messages import Handler
from .options import HOST, PORT, Failed, check, check_place, read
from .workers import Worker, Workers


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    given = sys.argv[1:] if arguments is None else arguments
    options = read(given)
    if options.tool is not None:
        return options.tool(options)  # type: ignore[no-any-return]
    worker = Worker(options.is_worker) if options.is_worker else None
    _set_up_logs(options, f"worker {worker.number}: " if worker else "")
    _open_as_many_files_as_allowed()
    try:
        check(options)
        if worker is None:
            check_place(options, sockets.activated())
        factory = _loop_factory(options.loop)
        if options.workers > 1 and worker is None:
            running = _keep_workers(options, given, _package(factory))
            factory = asyncio.SelectorEventLoop
        else:
            running = _serve(_handler(options), options, worker)
        with asyncio.Runner(loop_factory=factory) as runner:
            return runner.run(running)
    except Failed as exc:
        return _say("rawstream: " + " ".join(str(exc).splitlines()), 2)
    except KeyboardInterrupt:
        return 130  # a Ctrl-C before the server had taken the signal
    finally:
        if worker is not None:
            worker.close()


def _say(line: str, status: int = 0) -> int:
    with contextlib.suppress(OSError):  # the terminal may be gone
        print(line, file=sys.stderr, flush=True)
    return status


def _open_as_many_files_as_allowed() -> None:
    """Each connection is an open file, and the soft limit is there for programs that use select(); Go does this too."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):  # macOS takes no "unlimited"
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _set_up_logs(options: argparse.Namespace, who: str) -> None:
    for name, level, form in (
        ("rawstream", logging.INFO, "%(levelname)s: %(message)s"),
        ("rawstream.access", logging.INFO if options.access_log else logging.WARNING, "%(message)s"),
        ("rawstream.wire", logging.DEBUG if options.wire else logging.WARNING, f"{who}%(message)s"),
    ):
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter(form))
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(level)
        logger.propagate = False
    if options.access_log:
        observe.access_log(options.access_log)


# -- the handler, the certificate, the loop ----------------------------------------------------------------------------


def _handler(options: argparse.Namespace) -> Handler:
    """The demo's router, or what MODULE:HANDLER names. Raises Failed."""
    name = options.handler
    if name is None:
        from .demo import build

        return build(options.hub, **options.tokens)
    module_name, colon, attribute = name.partition(":")
    if not colon or not attribute or not all(part.isidentifier() for part in module_name.split(".")):
        raise Failed(f"name a handler as module:handler, as in 'serve mymodule:router', not {name!r}")
    sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as exc:
        if exc.name is not None and (module_name == exc.name or module_name.startswith(exc.name + ".")):
            raise Failed(f"there is no module {exc.name!r} in {os.getcwd()} or among the installed ones") from exc
        raise Failed(f"module {module_name!r} cannot be imported: {exc}{_where(exc)}") from exc
    except (Exception, SystemExit) as exc:
        raise Failed(f"module {module_name!r} cannot be imported: {type(exc).__name__}: {exc}{_where(exc)}") from exc
    try:
        handler = operator.attrgetter(attribute)(module)
    except AttributeError as exc:
        raise Failed(f"module {module_name!r} has no {attribute!r}") from exc
    if not callable(handler):
        raise Failed(f"{name} is no handler but a {type(handler).__name__}: a function or a Router is one")
    return handler  # type: ignore[no-any-return]


def _where(exc: BaseException) -> str:
    """The last line of the user's that was at work, not of what it called here or of the import machinery."""
    frames = traceback.extract_tb(exc.__traceback__)
    ours = (os.path.dirname(__file__), os.path.dirname(importlib.__file__), "<frozen")
    users = [frame for frame in frames if not frame.filename.startswith(ours)]
    return f" ({users[-1].filename}, line {users[-1].lineno})" if users and not isinstance(exc, SyntaxError) else ""


def _tls(options: argparse.Namespace) -> ssl.SSLContext | None:
    if options.certfile is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2  # RFC 9325 section 3.1.1: older ones must not be used
    _load_certificate(context, options.certfile, options.keyfile)
    return context


def _load_certificate(context: ssl.SSLContext, certificate: str, key: str | None) -> None:
    """Raises Failed, which names the file that is wrong."""
    for file in [certificate, key or certificate]:
        try:
            open(file, "rb").close()  # the ssl module does not say which one is not there
        except OSError as exc:
            raise Failed(f"the certificate or key {file} cannot be read: {exc.strerror}") from exc
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
    except ssl.SSLError as exc:
        if exc.reason == "KEY_VALUES_MISMATCH":
            raise Failed(f"the key in {key or certificate} is not that of the certificate in {certificate}") from exc
        file, what = (
            (key or certificate, "private key") if _has_certificate(certificate) else (certificate, "certificate")
        )
        raise Failed(f"{file} has no {what} in PEM format that can be used ({exc.reason or exc})") from exc


def _has_certificate(file: str) -> bool:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(file)
    except ssl.SSLError:
        return False
    return True


def _reload(context: ssl.SSLContext | None, options: argparse.Namespace, who: str) -> None:
    """Load the certificate anew for the handshakes to come. A bad one must not spoil the one in use."""
    if context is None:
        _say(f"{who}SIGHUP ignored: there is no certificate to load anew")
        return
    try:
        fresh = _tls(options)
    except Failed as exc:
        _say(f"{who}the old certificate stays: {exc}")
    else:
        # Loaded into `context`, a certificate with a key of another kind would stand beside the old one.
        context.sni_callback = lambda tls, name, first: setattr(tls, "context", fresh)
        _say(f"{who}the certificate is loaded anew")


def _no_password() -> str:
    raise Failed("the private key is encrypted: give one that is not, since nobody may be there to type a password")


def _loop_factory(choice: str) -> Callable[[], asyncio.AbstractEventLoop]:
    if choice != "asyncio":
        try:
            import uvloop

            return uvloop.new_event_loop
        except ImportError as exc:
            if choice == "uvloop":
                raise Failed("uvloop is not installed: pip install uvloop, or --loop asyncio") from exc
    return asyncio.SelectorEventLoop


def _package(factory: Callable[[], asyncio.AbstractEventLoop]) -> str:
    return factory.__module__.partition(".")[0]


# -- running -----------------------------------------------------------------------------------------------------------


async def _serve(handler: Handler, options: argparse.Namespace, worker: Worker | None) -> int:
    context = _tls(options)
    loop = asyncio.get_running_loop()
    who = f"worker {worker.number}: " if worker else ""
    loop.add_signal_handler(signal.SIGHUP, _reload, context, options, who)
    async with _listening(options, worker) as listening, _opened(options.hub):
        try:
            server = await serve(
                handler, sockets=listening, ssl=context, limits=options.limits, timeouts=options.timeouts,
                signals=worker is None, **options.access,
            )  # fmt: skip
        except OSError as exc:
            raise Failed(f"cannot listen on {_asked(options)}: {_reason(exc)}") from exc
        if worker is None:
            _say(_says_where(listening, options, _package(type(loop))))
        else:
            worker.serves(server)
        await server.closing.wait()
        if server.busy:
            count = f"{server.busy} open connection" + ("s" if server.busy > 1 else "")
            _say(f"{who}closing: waiting up to {options.timeouts.grace:g} s for {count}; Ctrl-C again cuts")
        await server.wait_closed()
    left = "handlers" if server.left_behind else await wind_up()
    if worker is not None:
        worker.has_served()
    if left:
        _say(f"{who}ending all the same, with {left} at work that were told to end")
        sys.stdout.flush()
        os._exit(1)  # asyncio, and the interpreter, would wait for them
    return 0


async def _keep_workers(options: argparse.Namespace, arguments: Sequence[str], loop: str) -> int:
    async with _listening(options) as listening:
        line = _says_where(listening, options, f"{loop}, {options.workers} workers")
        return await Workers(options.workers, arguments, listening, options.timeouts.grace, _say).run(line)


@contextlib.asynccontextmanager
async def _opened(hub: Hub | None) -> AsyncIterator[None]:
    """The demo's channels. In the end all hubs are closed, a handler's own too: after the server's last request."""
    logger = logging.getLogger("rawstream")
    logger.disabled = hub is not None  # one line will do, and it is told below
    try:
        if hub is not None:
            await hub.store()
    except StoreUnavailable as exc:
        where = re.sub("//.*@", "//", hub.url).partition("?")[0] if hub else ""  # without a password
        why = f" ({exc.__cause__.args[-1]})" if exc.__cause__ and exc.__cause__.args else ""
        raise Failed(f"{exc}: {where}{why}") from exc
    finally:
        logger.disabled = False
    try:
        yield
    finally:
        await close_all()


@contextlib.asynccontextmanager
async def _listening(options: argparse.Namespace, worker: Worker | None = None) -> AsyncIterator[list[socket.socket]]:
    """The sockets to serve on. In the end, the file of a Unix socket of ours is removed."""
    if worker is not None:
        yield worker.sockets
        return
    with contextlib.ExitStack() as ending:
        try:
            if options.descriptors:
                listening = [sockets.inherited(descriptor) for descriptor in options.descriptors]
            elif options.uds is not None:
                listening = [sockets.bound_unix(options.uds)]
            else:
                port = PORT if options.port is None else options.port
                listening = await sockets.bound([options.host or HOST], port)
            for sock in listening:
                ending.enter_context(sock)  # who serves on it has closed it, if it came to that
            _check_publishing(listening, options)
            sockets.listen(listening, options.timeouts.write_stall)
        except (OSError, RawstreamError) as exc:
            raise Failed(f"cannot listen on {_asked(options)}: {_reason(exc)}") from exc
        if options.uds is not None:
            ending.callback(sockets.SocketFile(options.uds).remove)
        yield listening


def _check_publishing(listening: Sequence[socket.socket], options: argparse.Namespace) -> None:
    """Whoever reaches the demo may publish, unless there is a token: so that is for this machine alone."""
    if options.hub is None or options.allow_open_publish or options.tokens["publish_token"] is not None:
        return
    for sock in listening:
        if isinstance(name := sock.getsockname(), tuple) and not is_loopback(name):
            raise Failed(
                f"on {name[0]} anybody could publish: give a token (RAWSTREAM_PUBLISH_TOKEN or --publish-token), "
                f"listen on {HOST}, or let everybody by --allow-open-publish"
            )


def _says_where(listening: Sequence[socket.socket], options: argparse.Namespace, how: str) -> str:
    where = ", ".join(_url(sock.getsockname(), options.certfile is not None) for sock in listening)
    return f"rawstream {__version__} listening on {where} ({how})"


def _asked(options: argparse.Namespace) -> str:
    if options.descriptors:
        numbers = ", ".join(map(str, options.descriptors))
        return f"file descriptor{'s' if len(options.descriptors) > 1 else ''} {numbers}"
    if options.uds is not None:
        return str(options.uds)
    return f"{options.host or HOST}:{PORT if options.port is None else options.port}"


def _reason(exc: Exception) -> str:
    if isinstance(exc, OSError) and exc.errno == errno.EADDRINUSE:
        return "it is in use already; choose another one, or stop who uses it"
    return (exc.strerror if isinstance(exc, OSError) else None) or str(exc)


def _url(address: Any, tls: bool) -> str:
    if isinstance(address, str):
        return f"unix:{address}"
    host, port = address[:2]
    return f"{'https' if tls else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"
