"""Step 7: an async generator as a response, and when to flush: each item, at the end, or before the generator waits."""

import asyncio
import types
from collections.abc import AsyncIterator, Callable, Coroutine, Generator
from functools import partial

reply = asyncio.Event()  # the reader has seen the question; in a real program it would send another request


async def conversation() -> AsyncIterator[str]:
    """Three words that are ready together; then it waits for somebody who has read them."""
    for word in ("Are ", "you ", "there?"):
        yield word
    await asyncio.wait([asyncio.create_task(reply.wait())], timeout=0.5)
    yield " Good." if reply.is_set() else " Nobody answers."


async def flush_each(items: AsyncIterator[str], write: Callable[[str], None]) -> None:
    async for item in items:
        write(item)


async def flush_at_the_end(items: AsyncIterator[str], write: Callable[[str], None]) -> None:
    write("".join([item async for item in items]))


async def flush_before_wait(items: AsyncIterator[str], write: Callable[[str], None]) -> None:
    gathered: list[str] = []

    def flush() -> None:
        if gathered:
            write("".join(gathered))
            gathered.clear()

    async def gather() -> None:
        async for item in items:
            gathered.append(item)  # noqa: PERF401 - a comprehension would hand them over at the end

    await before_wait(gather(), flush)
    flush()


@types.coroutine
def before_wait(coroutine: Coroutine, call: Callable[[], None]) -> Generator:
    """Like `await coroutine`, but with a call each time before it waits."""
    for waits_for in coroutine.__await__():  # runs it until it waits, and gives what it waits for
        call()
        yield waits_for  # handed on to the event loop, which goes on with us when it has happened


async def serve(policy: Callable[..., Coroutine], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    def write(text: str) -> None:
        print("  written:", chunk := b"%x\r\n%b\r\n" % (len(text.encode()), text.encode()))
        writer.write(chunk)

    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n")
    await policy(conversation(), write)
    writer.write(b"0\r\n\r\n")
    writer.close()


async def main() -> None:
    for policy in (flush_each, flush_at_the_end, flush_before_wait):
        print(policy.__name__)
        reply.clear()
        async with await asyncio.start_server(partial(serve, policy), "127.0.0.1", 0) as server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await reader.readuntil(b"?")
            reply.set()  # as a person would, who has read the question
            await reader.read()
            writer.close()


asyncio.run(main())
