"""Step 3: the same bytes in three rhythms. A server makes three items; when does its client see each?"""

import collections
import select
import socket
import time
from collections.abc import Callable

ITEMS = [b"one ", b"two ", b"three"]
A_MOMENT = 0.005  # seconds in which bytes that have left are here: on one machine it takes some 0.00005
Seen = tuple[bytes, ...]


def connect(nagle: bool) -> tuple[socket.socket, socket.socket]:
    """Both ends of one connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname(), timeout=5)
        server, _ = listener.accept()
    server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, not nagle)
    return client, server


def delay_acknowledgements(client: socket.socket) -> None:
    """As a connection does by itself after some requests and answers; Linux is quicker at the beginning."""
    if hasattr(socket, "TCP_QUICKACK"):
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 0)


def read_now(client: socket.socket) -> bytes:
    """What has arrived by now."""
    return client.recv(4096) if select.select([client], [], [], A_MOMENT)[0] else b""


def watch(nagle: bool, flush_each: bool) -> tuple[Seen, float]:
    """What the client had after each item and after the end, and seconds from the last item until it had everything."""
    client, server = connect(nagle)
    delay_acknowledgements(client)
    out = server.makefile("wb", buffering=4096)  # Python's own buffer in front of the socket
    seen = []
    for item in ITEMS:
        out.write(item)
        if flush_each:
            out.flush()  # the buffer gives the bytes to the kernel
        began = time.monotonic()
        seen.append(read_now(client))
    out.flush()
    late = b""
    while len(b"".join(seen) + late) < len(b"".join(ITEMS)):
        late += client.recv(4096)
    took = time.monotonic() - began
    for each in (out, server, client):
        each.close()
    return (*seen, late), took


def usually(run: Callable[[], tuple[Seen, float]]) -> tuple[Seen, float]:
    """The commonest of five results: a machine that is busy with other things may disturb one of them."""
    results = [run() for _ in range(5)]
    commonest, _ = collections.Counter(seen for seen, _ in results).most_common(1)[0]
    return commonest, min(took for seen, took in results if seen == commonest)


for title, nagle, flush_each in (
    ("written, and flushed at the end", False, False),
    ("each item flushed, Nagle's algorithm on", True, True),
    ("each item flushed, Nagle's algorithm off (TCP_NODELAY)", False, True),
):
    seen, took = usually(lambda nagle=nagle, flush_each=flush_each: watch(nagle, flush_each))
    print(title)
    for when, data in zip(("after item 1", "after item 2", "after item 3", "later"), seen, strict=True):
        print(f"  {when:13} the client reads {data!r}" if data else f"  {when:13} -")
    if flush_each and seen[-1]:
        print(f"  the kernel held items back for ~{took * 1000:.0f} ms")
