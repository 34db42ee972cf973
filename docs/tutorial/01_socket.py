"""Step 1: HTTP by hand on a bare socket. Client and server take turns in one thread, so that you see who does what."""

import socket

BODY = "It is 5 °C.\n".encode()


def show(who: str, data: bytes) -> None:
    """Each line as Python writes bytes: \\r\\n is the end of a line, \\xc2\\xb0 the two bytes of a degree sign."""
    for line in data.splitlines(keepends=True):
        print(f"{who} {line!r}")


def read_head(connection: socket.socket) -> tuple[bytes, bytes]:
    """The bytes up to the empty line, and those behind it that have come along."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = connection.recv(4096)  # what there is by now: never rely on where it was cut
        if not piece:
            raise EOFError("the peer has gone in the middle of a head")
        data += piece
    head, end, rest = data.partition(b"\r\n\r\n")
    return head + end, rest


listener = socket.create_server(("127.0.0.1", 0))
client = socket.create_connection(listener.getsockname())
server, _ = listener.accept()  # a socket to this client alone; the listener goes on listening
for each in (client, server):
    each.settimeout(5)  # a mistake shall not hang

print("A request is text. It may be sent in pieces; its end is an empty line.")
client.sendall(b"GET /weather HTTP/1.1\r\nHo")
client.sendall(b"st: localhost\r\n\r\n")
head, rest = read_head(server)
show("  client -> server", head)
method, target, version = head.split(b"\r\n")[0].decode().split(" ")
print(f"  the server reads: method {method}, target {target}, version {version}")

print("The answer says how many bytes its body has.")
answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY
show("  server -> client", answer)
server.sendall(answer)

head, body = read_head(client)
length = int(head.split(b"Content-Length: ")[1].split(b"\r\n")[0])
while len(body) < length:
    body += client.recv(length - len(body))
body = body[:length]  # what is behind it would be the next answer
print(f"  the client waits for {length} bytes, which are {len(body.decode())} characters: {body.decode()!r}")

print("The connection is still open for a second request. This answer ends with the connection.")
client.sendall(b"GET /weather HTTP/1.1\r\nHost: localhost\r\n\r\n")
read_head(server)
answer = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + BODY
show("  server -> client", answer)
server.sendall(answer)
server.close()

head, body = read_head(client)
while piece := client.recv(4096):
    body += piece
print(f"  the client read until recv() gave {piece!r}, the end: {body.decode()!r}")

client.close()
listener.close()
