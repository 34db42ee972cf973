"""hypercorn with Starlette's `StreamingResponse`: https://hypercorn.readthedocs.io/en/latest/how_to_guides/api_usage.html

One process, as an API user runs it; `--loop uvloop` is its worker class of that name. No access log, which it has by
default.
"""

import argparse
import asyncio

from hypercorn.asyncio import serve
from hypercorn.config import Config

from benchmarks.certificate import certificate
from benchmarks.peers.common import BACKLOG, announce, arguments, inherited_socket, loop_factory
from benchmarks.peers.starlette_app import app


async def run(options: argparse.Namespace) -> None:
    """Serve until the process is ended."""
    sock = inherited_socket()
    config = Config()
    config.bind = [f"fd://{sock.fileno()}"]
    config.backlog = BACKLOG
    config.loglevel = "ERROR"
    if options.tls:
        config.certfile = config.keyfile = str(certificate())
    announce(sock.getsockname()[1])
    await serve(app, config)  # type: ignore[arg-type, unused-ignore]


if __name__ == "__main__":
    given = arguments().parse_args()
    with asyncio.Runner(loop_factory=loop_factory(given.loop)) as main:
        main.run(run(given))
