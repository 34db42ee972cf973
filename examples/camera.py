"""A camera in a browser, without a script: `<img src="/camera">`.

It shows a format that rawstream does not know (multipart/x-mixed-replace, as network cameras send it), and the newest
frame winning. All watch one camera; each gets the frame that is the newest when its connection can take one. So a slow
one sees fewer, and none sees old ones. The frames are PNG, made here; yours may be JPEG from anything that makes them.

    $ python camera.py --fps 10 --port 8000 &
    $ curl -sN localhost:8000/camera | grep -a --line-buffered Frame

and open http://localhost:8000.
"""

import argparse
import asyncio
import colorsys
import itertools
import struct
import sys
import zlib

from rawstream import Response, Router, Stream, serve

WIDTH, HEIGHT = 320, 240
COLOURS = bytes(int(255 * part) for n in range(256) for part in colorsys.hsv_to_rgb(n / 256, 0.5, 1))
STRIPES = bytes(range(256)) * 4

router = Router()


def picture(n):
    """The frame of that number, as PNG: diagonal stripes, which move."""
    lines = b"".join(b"\0" + STRIPES[(4 * n + y) % 256 :][:WIDTH] for y in range(HEIGHT))
    parts = {b"IHDR": struct.pack(">IIBBBBB", WIDTH, HEIGHT, 8, 3, 0, 0, 0), b"PLTE": COLOURS}
    parts |= {b"IDAT": zlib.compress(lines, 1), b"IEND": b""}
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts.items()
    )


class Camera:
    """Makes frames, and keeps the newest."""

    def __init__(self):
        self.number, self.frame, self._next = 0, b"", asyncio.Event()

    async def film(self, fps):
        for number in itertools.count(1):
            self.number, self.frame = number, picture(number)
            self._next.set()
            self._next = asyncio.Event()
            await asyncio.sleep(1 / fps)

    async def watch(self, closing):
        seen = 0
        yield b"--frame\r\n"
        while not closing.is_set():
            if self.number == seen:
                await self._next.wait()
            seen = self.number
            head = f"Content-Type: image/png\r\nContent-Length: {len(self.frame)}\r\nFrame: {seen}\r\n\r\n"
            # The boundary goes behind the frame, not before the next one: browsers show a frame when it is there.
            yield head.encode() + self.frame + b"\r\n--frame\r\n"


camera = Camera()


@router.get("/camera")
async def stream(request):
    headers = {"Content-Type": "multipart/x-mixed-replace; boundary=frame", "Cache-Control": "no-store"}
    return Stream(camera.watch(request.closing), format="bytes", headers=headers)


@router.get("/")
async def page(request):
    html = '<!doctype html><link rel="icon" href="data:,"><img src="/camera">'
    return Response.text(html, headers={"Content-Type": "text/html; charset=utf-8"})


async def main(fps, port):
    # The group is outside the server: should the camera fail, the server closes.
    async with asyncio.TaskGroup() as group, serve(router, port=port, signals=True) as server:
        print("camera.py listening on http://{}:{} (Ctrl-C ends it)".format(*server.addresses[0]), file=sys.stderr)
        filming = group.create_task(camera.film(fps))
        await server.wait_closed()
        filming.cancel()


if __name__ == "__main__":
    options = argparse.ArgumentParser(description="A camera that films stripes.")
    options.add_argument("--fps", type=float, default=10, help="frames a second")
    options.add_argument("--port", type=int, default=8000)
    asyncio.run(main(**vars(options.parse_args())))
