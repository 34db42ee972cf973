"""Runs an ASGI application under uvicorn, on a socket that was opened before."""

import argparse
from typing import Any

import uvicorn

from benchmarks.certificate import certificate
from benchmarks.peers.common import BACKLOG, announce, listening_socket


def serve(app: Any, options: argparse.Namespace) -> None:
    """Serve until the process is ended. `options` has `http`, `loop` and `tls`."""
    config = uvicorn.Config(
        app,
        http=options.http,
        loop=options.loop,
        access_log=False,
        log_level="error",
        backlog=BACKLOG,
        ssl_certfile=certificate() if options.tls else None,
    )
    with listening_socket() as sock:
        announce(sock.getsockname()[1])
        uvicorn.Server(config).run(sockets=[sock])
