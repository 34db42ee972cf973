"""Step 2: a body whose length nobody knows yet, in chunks, by hand; and what clients see of it."""

import http.client
import socket

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
WORDS = ["Hello, ", "世界", ", this is a longer piece.\n"]
LAST = b"0\r\n\r\n"  # a chunk of no bytes is the end


def chunk(payload: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(payload), payload)  # first the size: bytes, as a hexadecimal number


def unchunk(data: bytes) -> tuple[list[bytes], bytes, bool]:
    """The payloads of the whole chunks in `data`, the bytes that are left, and whether the last chunk has come."""
    payloads = []
    while b"\r\n" in data:
        line, _, rest = data.partition(b"\r\n")
        size = int(line, 16)
        if len(rest) < size + 2:
            break  # more of this chunk is to come
        data = rest[size + 2 :]
        if size == 0:
            return payloads, data, True
        payloads.append(rest[:size])
    return payloads, data, False


def ask_python(answer: bytes) -> str:
    """What Python's own client makes of an answer after which the server closes."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = http.client.HTTPConnection(*listener.getsockname(), timeout=5)
        client.request("GET", "/")
        server, _ = listener.accept()
        with server:
            server.recv(4096)  # the request; it is small, and here in one piece
            server.sendall(answer)
        try:
            return f"a body: {client.getresponse().read().decode()!r}"
        except http.client.IncompleteRead as cut:
            return f"IncompleteRead, after {cut.partial.decode()!r}"
        finally:
            client.close()


listener = socket.create_server(("127.0.0.1", 0))
client = socket.create_connection(listener.getsockname(), timeout=5)
server, _ = listener.accept()

print("The head says that the length is not known: chunked.")
server.sendall(HEAD)
print("  server sends", client.recv(4096))

print("Each word is a chunk of its own, and can be read at once:")
for word in WORDS:
    server.sendall(chunk(word.encode()))
    data = client.recv(4096)
    print(f"  server sends {data!r}")
    print(f"    the client reads {unchunk(data)[0][0].decode()!r}")

print("The network may cut the bytes anywhere, so that one read ends within a chunk:")
server.sendall(b"6\r\nab")
left = client.recv(4096)
payloads, left, ended = unchunk(left)
print(f"  {payloads} is whole, {left!r} is kept; ended: {ended}")
server.sendall(b"cdef\r\n" + LAST)
payloads, left, ended = unchunk(left + client.recv(4096))
print(f"  {payloads} is whole, {left!r} is kept; ended: {ended}")
for each in (client, server, listener):
    each.close()

body = b"".join(chunk(word.encode()) for word in WORDS)
print("Python's http.client hides the chunks, and knows whether all of them came:")
print("  with the last chunk:   ", ask_python(HEAD + body + LAST))
print("  without the last chunk:", ask_python(HEAD + body))
