"""Step 5: h11 knows the protocol and no socket. First it is fed by hand; then asyncio brings the bytes."""

import asyncio

import h11

ITEMS = [b"one\n", b"two\n"]

print("Bytes in, events out. h11 keeps what is not whole yet:")
wire = h11.Connection(h11.SERVER)
for piece in (b"GET /items HT", b"TP/1.1\r\nHost: localhost\r\n", b"\r\n"):
    wire.receive_data(piece)
    event = wire.next_event()
    print(f"  {piece!r} -> {event.__name__ if event is h11.NEED_DATA else type(event).__name__}")
print(f"  {event.method!r} {event.target!r}, and then {type(wire.next_event()).__name__}")

print("Events in, bytes out. h11 chooses how the body is framed:")
for event in (h11.Response(status_code=200, headers=[]), h11.Data(ITEMS[0]), h11.EndOfMessage()):
    print(f"  {type(event).__name__:13} -> {wire.send(event)!r}")

print("It knows what may come next, on both sides:")
print(f"  our state {wire.our_state}, their state {wire.their_state}")
try:
    wire.send(h11.Data(b"one more"))
except h11.LocalProtocolError as error:
    print(f"  one more piece of the body: LocalProtocolError: {error}")


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One connection: read a request, answer it, and go on as long as both sides agree to."""
    wire = h11.Connection(h11.SERVER)
    try:
        while True:
            while (event := wire.next_event()) is h11.NEED_DATA:
                wire.receive_data(await reader.read(4096))
            if type(event) is h11.ConnectionClosed:
                break
            if type(event) is h11.Request:
                writer.write(wire.send(h11.Response(status_code=200, headers=[])))
                for item in ITEMS:
                    writer.write(wire.send(h11.Data(item)))
                writer.write(wire.send(h11.EndOfMessage()))
            elif type(event) is h11.EndOfMessage:
                if wire.our_state is not h11.DONE:
                    break
                wire.start_next_cycle()
    except h11.RemoteProtocolError as error:
        headers = [("Content-Length", "0"), ("Connection", "close")]
        writer.write(wire.send(h11.Response(status_code=error.error_status_hint, headers=headers)))
    writer.close()


async def ask(port: int, request: bytes) -> None:
    """Send some bytes, and print all that comes back until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    writer.write_eof()
    print(f"  {request!r}\n  -> {await reader.read()!r}")
    writer.close()


async def main() -> None:
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        print("A client that speaks HTTP/1.1 may send two requests at once:")
        await ask(port, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * 2)
        print("To one that speaks HTTP/1.0 the end of the connection is the end of the body:")
        await ask(port, b"GET / HTTP/1.0\r\n\r\n")
        print("A request without Host breaks the rules of HTTP/1.1:")
        await ask(port, b"GET / HTTP/1.1\r\n\r\n")


asyncio.run(main())
