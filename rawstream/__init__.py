"""rawstream: the shortest honest way from a Python async generator to bytes on a socket.

import asyncio
from rawstream import Router, serve

router = Router()

@router.get("/count")
async def count(request):
    for n in range(10):
        await asyncio.sleep(0.5)
        yield n

async def main():
    async with serve(router, port=8000) as server:
        await server.wait_closed()

asyncio.run(main())
"""

from . import errors
from .channels import Channel, Hub, Run
from .client import Backoff, ClientLimits, ClientTimeouts, events, fetch
from .config import Limits, Timeouts
from .messages import Every, Request, Response, Stream
from .routing import Router
from .server import Server, serve
from .sse import Event

__version__ = "0.1.0"

__all__ = [
    "Backoff",
    "Channel",
    "ClientLimits",
    "ClientTimeouts",
    "Event",
    "Every",
    "Hub",
    "Limits",
    "Request",
    "Response",
    "Router",
    "Run",
    "Server",
    "Stream",
    "Timeouts",
    "errors",
    "events",
    "fetch",
    "serve",
]
