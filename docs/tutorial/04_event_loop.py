"""Step 4: an event loop by hand. One thread serves two clients at once, and sleeps in one place only."""

import heapq
import selectors
import socket
import time
from collections.abc import Generator
from typing import Any

HEAD = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"
PACE = {"/a": (3, 0.10), "/b": (2, 0.13)}  # how many items, and so many seconds before each
Task = Generator[tuple[str, Any], None, None]


class Loop:
    """Runs generators. Each yields what it waits for: ("readable", socket) or ("until", time)."""

    def __init__(self) -> None:
        self.selector = selectors.DefaultSelector()  # asks the kernel which sockets have something to read
        self.timers: list[tuple[float, int, Task]] = []  # a heap: the one that is due first comes first

    def step(self, task: Task) -> None:
        """Run a task until it waits again, and note for what."""
        kind, what = next(task, ("end", None))
        if kind == "readable":
            self.selector.register(what, selectors.EVENT_READ, task)
        elif kind == "until":
            heapq.heappush(self.timers, (what, id(task), task))

    def run(self) -> None:
        while self.timers or self.selector.get_map():
            patience = max(0.0, self.timers[0][0] - time.monotonic()) if self.timers else None
            due = []
            for key, _ in self.selector.select(patience):  # here the thread sleeps, until anything happens
                self.selector.unregister(key.fileobj)
                due.append(key.data)
            while self.timers and self.timers[0][0] <= time.monotonic():
                due.append(heapq.heappop(self.timers)[2])
            for task in due:
                self.step(task)
        self.selector.close()


def accept(loop: Loop, listener: socket.socket) -> Task:
    for _ in PACE:
        yield "readable", listener
        loop.step(answer(listener.accept()[0]))


def answer(connection: socket.socket) -> Task:
    yield "readable", connection
    path = connection.recv(4096).split()[1].decode()
    connection.sendall(HEAD)
    count, seconds = PACE[path]
    began = time.monotonic()
    for n in range(1, count + 1):
        yield "until", began + n * seconds
        print(f"  {path} is due: the server sends item {n} of {count}")
        connection.sendall(f"{n} ".encode())
    connection.close()


listener = socket.create_server(("127.0.0.1", 0))
clients = {path: socket.create_connection(listener.getsockname(), timeout=5) for path in PACE}
for path, client in clients.items():  # both are in the kernel's queue before the server looks
    client.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())

began = time.monotonic()
loop = Loop()
print("One thread, two clients:")
loop.step(accept(loop, listener))
loop.run()
took, alone = time.monotonic() - began, sum(count * seconds for count, seconds in PACE.values())

for path, client in clients.items():
    print(f"client {path} has read {client.makefile('rb').read()!r}")
    client.close()
listener.close()
print(f"It took ~{took:.2f} s. One after the other it would have been ~{alone:.2f} s.")
