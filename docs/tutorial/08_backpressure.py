"""Step 8: a fast writer, and a reader who reads nothing at first. Where do the bytes pile up, and who waits?"""

import asyncio
import socket

ITEM = 10_000  # bytes
ALL = 2_000  # items: 20 MB
MARK = 16 * 1024  # bytes


class Sender:
    """A server that makes ALL items, one by one, and sends them."""

    def __init__(self, wait: bool, mark: int = 64 * 1024) -> None:
        self.wait, self.mark, self.made, self.kept = wait, mark, 0, 0

    async def serve(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.set_write_buffer_limits(high=self.mark)
        if self.mark == MARK and hasattr(socket, "TCP_NOTSENT_LOWAT"):
            # The kernel shall take no more than this before it has left for the reader's machine.
            writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, MARK)
        for number in range(ALL):
            self.made += 1
            writer.write(b"%0*d" % (ITEM, number))  # never waits: what the kernel does not take is kept here
            self.kept = max(self.kept, writer.transport.get_write_buffer_size())
            if self.wait:
                await writer.drain()  # waits while more is kept than the mark
        writer.close()

    async def rest(self) -> None:
        """Until no item was made for a tenth of a second."""
        before = -1
        while before < self.made or self.made == 0:
            before = self.made
            await asyncio.sleep(0.1)


async def read(client: socket.socket, size: int) -> int:
    """Read so many bytes; fewer if the server ends before."""
    left = size
    while left and (data := await asyncio.get_running_loop().sock_recv(client, min(left, 65536))):
        left -= len(data)
    return size - left


async def main() -> None:
    for title, sender in (
        ("write() alone", Sender(wait=False)),
        ("write() and drain()", Sender(wait=True)),
        ("write() and drain(), with low marks in asyncio and in the kernel", Sender(wait=True, mark=MARK)),
    ):
        print(title)
        async with await asyncio.start_server(sender.serve, "127.0.0.1", 0) as server:
            with socket.create_connection(server.sockets[0].getsockname()) as client:
                client.setblocking(False)
                await sender.rest()
                paused = sender.made
                print(f"  the reader has read nothing; the writer {'waits' if paused < ALL else 'has ended'}")
                print(f"    made: ~{paused * ITEM / 1e6:.1f} MB; kept in this process: ~{sender.kept / 1e6:.2f} MB")
                print(f"    kept no more than the mark and one item: {sender.kept <= sender.mark + ITEM}")
                got = await read(client, 8_000_000)
                await sender.rest()
                print(f"  it has read 8 MB; more was made meanwhile: {sender.made > paused}")
                got += await read(client, ALL * ITEM)
                print(f"  it has read all: {got == ALL * ITEM}")


asyncio.run(main())
