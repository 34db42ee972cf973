"""granian with Starlette's `StreamingResponse`: https://github.com/emmett-framework/granian#options

One worker, HTTP/1.1, uvloop, no logs. granian opens its port by itself, and lets a worker have as many connections as
its backlog is long (`backpressure`): with more streams than that it would stop to accept.
"""

import socket
import threading

from granian.constants import HTTPModes, Interfaces, Loops
from granian.server import Server

from benchmarks.certificate import certificate
from benchmarks.peers.common import BACKLOG, announce, arguments

_CONNECTIONS = 65_535


def reserved() -> socket.socket:
    """A socket that holds a free port for granian, which opens its own on it with SO_REUSEPORT. It never listens."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind(("127.0.0.1", 0))
    return sock


def announce_when_ready(port: int, stop: threading.Event) -> None:
    """Tell the benchmark the port as soon as it accepts: the worker is started after the hooks."""
    while not stop.wait(0.01):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            continue
        announce(port)
        return


def main() -> None:
    """Serve until the process is ended."""
    options = arguments().parse_args()
    with reserved() as sock:
        port = sock.getsockname()[1]
        server = Server(
            "benchmarks.peers.starlette_app:app",
            address="127.0.0.1",
            port=port,
            interface=Interfaces.ASGI,
            http=HTTPModes.http1,
            loop=Loops.uvloop,
            websockets=False,
            backlog=BACKLOG,
            backpressure=_CONNECTIONS,
            log_enabled=False,
            ssl_cert=certificate() if options.tls else None,
            ssl_key=certificate() if options.tls else None,
        )
        stop = threading.Event()
        threading.Thread(target=announce_when_ready, args=(port, stop), daemon=True).start()
        try:
            server.serve()
        finally:
            stop.set()


if __name__ == "__main__":
    main()
