"""Step 6: server-sent events by hand: lines of text. With --serve, a real EventSource in your browser reads them."""

import asyncio
import contextlib
import sys

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nConnection: close\r\n\r\n"
PAGE = b"""<meta charset="utf-8"><title>EventSource</title><pre id="out"></pre><script>
const show = (event) => { out.append(`${event.type}: ${event.data ?? ""} (last id: ${event.lastEventId ?? ""})\\n`) };
const source = new EventSource("/events");
for (const name of ["open", "message", "weather", "error"]) source.addEventListener(name, show);
</script>"""
EVENTS = [
    {"data": "Hello"},
    {"event": "weather", "data": "5 °C\nand rain", "id": "7"},  # a line break cannot be in a field: two fields then
    {"data": "from now on wait a second before you come back", "retry": "1000"},
]


def encode(event: dict[str, str]) -> bytes:
    """One event: a line for each field, and an empty line at the end."""
    lines = [f"{name}: {line}\n" for name, value in event.items() for line in value.split("\n")]
    return "".join([*lines, "\n"]).encode()


class Decoder:
    """Events out of bytes, however they are cut. It takes LF for the end of a line; the standard also knows CR."""

    def __init__(self) -> None:
        self.rest, self.event = b"", {}
        self.id = self.last_id = ""  # an id counts when its event is whole

    def feed(self, data: bytes) -> list[dict[str, str]]:
        *lines, self.rest = (self.rest + data).split(b"\n")
        events = []
        for line in lines:
            name, _, value = line.decode().partition(":")
            value = value.removeprefix(" ")
            if line == b"":  # an empty line: that was the event; without data it is none
                self.last_id = self.id
                events += [{**self.event, "last id": self.last_id}] if "data" in self.event else []
                self.event = {}
            elif name == "data" and "data" in self.event:
                self.event["data"] += "\n" + value
            elif name == "id":
                self.id = value
            elif name in ("data", "event"):  # all others are ignored; a comment's name is empty
                self.event[name] = value
        return events


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """The page at /, the events everywhere else."""
    request = await reader.readuntil(b"\r\n\r\n")
    if request.startswith(b"GET / "):
        writer.write(HEAD % b"text/html" + PAGE)
    else:
        writer.writelines([HEAD % b"text/event-stream", b": a comment, which is for nobody\n\n", *map(encode, EVENTS)])
    writer.close()


async def main() -> None:
    server = await asyncio.start_server(serve, "127.0.0.1", 8000 if "--serve" in sys.argv else 0)
    async with server:
        if "--serve" in sys.argv:
            print("open http://127.0.0.1:8000 and see; Ctrl-C ends it", flush=True)
            await server.serve_forever()
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"GET /events HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n")
        _, _, body = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
    print("The body:", *body.splitlines(keepends=True), sep="\n  ")
    events, bytewise = Decoder().feed(body), Decoder()
    print("What a client makes of it:", *events, sep="\n  ")
    same = [event for byte in body for event in bytewise.feed(bytes([byte]))] == events
    print(f"The same when it comes byte by byte: {same}")


with contextlib.suppress(KeyboardInterrupt):
    asyncio.run(main())
