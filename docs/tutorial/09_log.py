"""Step 9: one event to many readers. There is one log, and a reader is a place in it."""

import socket
import tracemalloc
from collections import deque

READERS, EVENTS = 10_000, 20
log: list[bytes] = []
encoded = 0  # how often an event was made into bytes


def encode(number: int, data: str) -> bytes:  # one server-sent event, as one chunk
    global encoded
    encoded += 1
    payload = f"id: {number}\ndata: {data}\n\n".encode()
    return b"%x\r\n%b\r\n" % (len(payload), payload)


class Reader:  # a cursor, and a socket that takes what it can; `client` is its other end
    def __init__(self, cursor: int) -> None:
        self.cursor = cursor  # it has been given so many events
        self.rest = b""  # what the socket has not taken of the last of them
        self.server, self.client = socket.socketpair()
        self.server.setblocking(False)

    def advance(self) -> None:
        """On from the cursor, until the log ends or the socket takes no more. There is no queue."""
        while self.rest or self.cursor < len(log):
            if not self.rest:
                self.rest = log[self.cursor]
                self.cursor += 1
            try:
                self.rest = self.rest[self.server.send(self.rest) :]
            except BlockingIOError:
                return  # it is behind; an event loop would call `advance` when the socket takes more

    def read(self) -> bytes:
        """What the client reads until it has all that the log holds now."""
        data = b""
        while data[-len(log[-1]) :] != log[-1]:
            self.advance()
            data += self.client.recv(65536)
        return data


def publish(data: str, readers: list[Reader]) -> None:
    log.append(encode(len(log) + 1, data))  # made into bytes once, for all of them
    for reader in readers:
        reader.advance()


quick, slow = Reader(0), Reader(0)
publish("first", [quick, slow])
print(f"An event is the same bytes for everybody: {log[0]!r}")
seen = quick.read()
for _ in range(999):
    publish("x" * 1000, [quick, slow])
    seen += quick.read()
print(f"After {len(log)} events: quick is at {quick.cursor}; slow, who read nothing, stopped at ~{slow.cursor}")
late = Reader(cursor=998)
print(f"Who comes late and has seen 998 gets {late.read().count(b'id: ')} events")
print(f"Slow reads at last, and has the same bytes as quick: {slow.read() == seen}")
for reader in (quick, slow, late):
    reader.server.close()
    reader.client.close()

print(f"{READERS} readers who take nothing, {EVENTS} events each:")
tracemalloc.start()
encoded = 0
cursors = [len(log)] * READERS  # they stay where they are
log += [encode(number, "x" * 50) for number in range(EVENTS)]
print(f"  with a log: ~{tracemalloc.get_traced_memory()[0] / 1e6:.1f} MB, made into bytes {encoded} times")
tracemalloc.clear_traces()
encoded = 0
queues: list[deque[bytes]] = [deque() for _ in range(READERS)]
for number in range(EVENTS):
    for queue in queues:
        queue.append(encode(number, "x" * 50))
print(f"  with a queue each: ~{tracemalloc.get_traced_memory()[0] / 1e6:.1f} MB, made into bytes {encoded} times")
