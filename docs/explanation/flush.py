"""When do the items leave? One generator, and the pump with each of its three ways to flush.

The generator yields two items that are ready together, waits, and yields a third. What it does and what the pump
writes is printed in the order in which it happens. There is no socket here: the sink prints.
"""

import asyncio

from rawstream.pump import GATHER, Pump

WAYS = [
    ("flush before wait", GATHER, 0.0),
    ('flush="item"', 1, 0.0),
    ("Every(bytes=64, seconds=60)", 64, 60.0),
]


class Sink:
    """Where a pump writes to: in the server a stream's way to the wire."""

    writable = True

    def write(self, payload: bytes) -> bool:
        if payload:
            print(f"    write {payload!r}")
        return True

    async def drain(self) -> None:
        """The reader is never behind."""

    def later(self, seconds, callback):
        return asyncio.get_running_loop().call_later(seconds, callback)


async def items():
    for item in (b"one ", b"two "):
        print(f"  yield {item!r}")
        yield item
    print("  wait")
    await asyncio.sleep(0)
    print("  go on")
    yield b"three "
    print("  the end")


async def main() -> None:
    for name, gather, hold in WAYS:
        print(name)
        pump = Pump(items(), bytes, Sink(), gather, hold, clock=lambda: 0.0)  # no time passes: no turn is ever too long
        await pump.run()
        print(f"    write {pump.take()!r}, with the end of the body")


asyncio.run(main())
