"""Step 10: a connection breaks, and the server is replaced. The reader misses nothing, and sees nothing twice."""

import asyncio
import socket
from collections.abc import AsyncIterator

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
log: list[str] = []  # event 1, event 2, ...; that of a real server is on disk, or in another process


class Server:  # sends each reader the log, on from where that reader was
    async def open(self, listener: socket.socket) -> None:
        self.streams, self.news = {}, asyncio.Event()  # the streams under way, and what wakes them
        self.door = await asyncio.start_server(self.serve, sock=listener.dup())

    def wake(self) -> None:
        self.news.set()
        self.news.clear()

    async def close(self) -> None:
        self.door.close()  # nobody is accepted any more
        self.wake()  # the streams see that, and end
        await asyncio.gather(*self.streams.values())

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.streams[writer] = asyncio.current_task()
        cursor = int((await reader.readuntil(b"\r\n\r\n")).partition(b"Last-Event-ID: ")[2].split(b"\r")[0])
        over = cursor == len(log) and log[-1:] == ["the end"]
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n" if over else HEAD)  # 204 says: do not come back
        while not (over or writer.is_closing()):
            while cursor < len(log):
                cursor += 1
                event = f"data: {log[cursor - 1]}\nid: {cursor}\n\n".encode()
                writer.write(b"%x\r\n%b\r\n" % (len(event), event))
            if over := log[-1:] == ["the end"] or not self.door.is_serving():
                writer.write(b"0\r\n\r\n")
            else:
                await self.news.wait()
        writer.close()
        del self.streams[writer]


async def read(address: tuple[str, int]) -> AsyncIterator[int]:  # as EventSource does; an event is a chunk here
    last, head = 0, b""
    while b" 204 " not in head:
        reader, writer = await asyncio.open_connection(*address)
        print(f"  reader: asks, Last-Event-ID: {last}")
        writer.write(f"GET / HTTP/1.1\r\nHost: localhost\r\nLast-Event-ID: {last}\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        while (line := await reader.readline()) not in (b"", b"0\r\n"):
            print("  reader:", event := (await reader.readexactly(int(line, 16) + 2))[:-2])
            yield (last := int(event.partition(b"\nid: ")[2]))
        end = "the last chunk, a proper end" if line else "no last chunk, it was cut"
        print("  reader:", "204, so that was all" if b" 204 " in head else end)
        writer.close()


async def main() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        reader, server, other = read(listener.getsockname()), Server(), Server()
        await server.open(listener)
        log.extend(["one", "two"])
        seen = [await anext(reader), await anext(reader)]
        print("The connection breaks. Event 3 is published before the reader is back.")
        next(iter(server.streams)).close()
        server.wake()
        log.append("three")
        seen.append(await anext(reader))
        print("The server closes. Event 4 is published while there is none; then another has the listening socket.")
        await server.close()
        log.append("four")
        await other.open(listener)
        seen.append(await anext(reader))
        log.append("the end")
        other.wake()
        print(f"seen: {seen + [each async for each in reader]}")
        await other.close()


asyncio.run(main())
