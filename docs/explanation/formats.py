"""One generator in every format: the exact bytes on the wire, complete and broken off.

A client on a bare socket asks with different `Accept` fields and prints what it receives: some fields of the head, and
then the body, a chunk a line, with the chunk's size and line ends as they are.
"""

import asyncio
import logging

from rawstream import Event, Router, pump, serve

ACCEPTS = ["application/json", "application/x-ndjson", "text/event-stream", "text/plain"]
LAST_CHUNK = b"0\r\n\r\n"

router = Router()


@router.get("/whole")
async def whole(request):
    yield "这"
    yield {"n": 1}
    await asyncio.sleep(0)  # a wait: what was yielded leaves
    yield Event("two\nlines", event="note", id="7")


@router.get("/broken")
async def broken(request):
    yield "这"
    await asyncio.sleep(0)
    raise RuntimeError("no more")


async def ask(port: int, path: str, accept: str) -> bytes:
    """All that comes, up to the last chunk or to the end of the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept: {accept}\r\n\r\n".encode())
    received = b""
    while not received.endswith(LAST_CHUNK) and (piece := await reader.read(4096)):
        received += piece
    writer.close()
    await writer.wait_closed()
    return received


def chunks(body: bytes) -> list[bytes]:
    """The chunks of a body, each with its size and its line ends."""
    found = []
    while body:
        size = body.index(b"\r\n") + 2 + int(body[: body.index(b"\r\n")], 16) + 2
        found.append(body[:size])
        body = body[size:]
    return found


async def main() -> None:
    logging.getLogger("rawstream").setLevel(logging.CRITICAL)  # the failure is meant
    async with serve(router, port=0) as server:
        port = server.addresses[0][1]
        for path in ("/whole", "/broken"):
            answers = await asyncio.gather(*(ask(port, path, accept) for accept in ACCEPTS))
            for accept, answer in zip(ACCEPTS, answers, strict=True):
                head, _, body = answer.partition(b"\r\n\r\n")
                print(f"GET {path}, Accept: {accept}")
                for line in head.split(b"\r\n")[1:] if path == "/whole" else []:
                    if not line.startswith((b"Date", b"Vary", b"Transfer-Encoding")):
                        print(f"    {line.decode()}")
                for chunk in chunks(body):
                    print(f"  {chunk!r}")
                if not body.endswith(LAST_CHUNK):
                    print("  and the connection ends")
                print()


pump.TURN = 60.0  # on a busy machine, too, what is ready together leaves together
asyncio.run(main())
