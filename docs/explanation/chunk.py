"""The life of a chunk, watched: which functions of rawstream an item passes, in what order, and what each makes of it.

Python calls a profiler whenever a function begins or ends. This one prints the stations named below, indented by depth.
"""

import asyncio
import os
import sys

from rawstream import Stream, fetch, pump, serve

STATIONS = {
    "ServerSentEvents.encode": "formats",
    "Pump._waits": "pump",
    "StreamSink.write": "exchange",
    "ServerWire.start": "wire",
    "chunked": "wire",
    "Transport.write": "transport",
}
depth = 0


def short(value: object) -> str:
    """A value as Python writes it; of a response's head only the first line."""
    if isinstance(value, bytes) and value.startswith(b"HTTP"):
        line, head_and_body = value.partition(b"\r\n")[0], value.partition(b"\r\n\r\n")
        return f"{line!r} … {head_and_body[2]!r}"
    return repr(value)


def watch(frame, event, argument) -> None:
    global depth
    name = frame.f_code.co_qualname
    if name not in STATIONS or frame.f_locals.get("payload") == b"":
        return
    if event == "c_call" and argument is os.write:
        print(f"{'  ' * depth}the kernel: os.write()")
    elif event == "call":
        given = [short(frame.f_locals[each]) for each in ("item", "payload", "data") if each in frame.f_locals]
        print(f"{'  ' * depth}{STATIONS[name]}: {name.rpartition('.')[2]}({', '.join(given)})")
        depth += 1
    elif event == "return":
        depth -= 1
        if isinstance(argument, bytes):
            print(f"{'  ' * depth}= {short(argument)}")


async def handler(request):
    return Stream(items(), format="sse", head="item", heartbeat=None)


async def items():
    sys.setprofile(watch)
    print("your generator: yield '这'")
    yield "这"
    print("your generator: yield '是'")
    yield "是"
    print("your generator: await")
    await asyncio.sleep(0)
    sys.setprofile(None)


async def main() -> None:
    async with serve(handler, port=0) as server, fetch("http://{}:{}".format(*server.addresses[0])) as response:
        async for piece in response.chunks():
            print(f"the reader: {piece!r}")
            break


pump.TURN = 60.0  # on a busy machine, too, what is ready together leaves together
asyncio.run(main())
