"""Follow a log file from anywhere: `tail -F` over HTTP.

It shows streams that are resumed without a store: an event's id is the file's number and the place behind the line. Who
comes back sends it as Last-Event-ID (EventSource does so by itself), and goes on there, even if the file was renamed.
The event `rotated` says that a new file begins, `restart` that something may be missing: it was truncated, or is gone.

    $ seq -f "line %g" 100 > app.log
    $ python tail.py app.log --port 8000 &
    $ curl -sN "localhost:8000/?lines=2"
"""

import argparse
import asyncio
import codecs
import os
import re
import sys
from pathlib import Path

from rawstream import Event, Stream, errors, serve

POLL = 0.25  # seconds between two looks at the file
LONGEST = 65536  # bytes of a line; what is longer comes in parts


async def tail(path, request):
    count = request.query.get("lines", "0")  # without it a reader begins with what comes next
    if not re.fullmatch(r"[0-9]{1,4}", count):
        raise errors.HTTPError(400, f"lines is a number from 0 to 9999, not {count}")
    if not path.exists():
        raise errors.NotFound(f"there is no {path.name}")
    file = found_again(path, request.last_event_id) if request.last_event_id else at_last_lines(path, int(count))
    return Stream(follow(path, file, request.closing), format="sse")


async def follow(path, file, closing):
    decode = codecs.getincrementaldecoder("utf-8")("replace").decode  # a part may end within a character
    try:
        while not closing.is_set():
            here, there = os.fstat(file.fileno()), path.stat() if path.exists() else None
            if here.st_size < file.tell():
                file.seek(0)
                yield Event(path.name, event="restart", id=f"{here.st_ino}-0")
            # A new file counts once something is in it: until then, what writes may still have the old one open.
            rotated = there is not None and there.st_ino != here.st_ino and there.st_size > 0
            while line := file.readline(LONGEST):
                if not ((whole := line.endswith(b"\n")) or len(line) == LONGEST or rotated):
                    file.seek(-len(line), os.SEEK_CUR)  # it is being written
                    break
                place = f"{here.st_ino}-{file.tell()}" if whole else None  # nobody goes on within a line
                yield Event(decode(line, whole or len(line) < LONGEST).rstrip("\r\n"), id=place)
            if rotated:
                file.close()
                file = path.open("rb")
                yield Event(path.name, event="rotated", id=f"{os.fstat(file.fileno()).st_ino}-0")
            else:
                await asyncio.sleep(POLL)
    finally:
        file.close()


def found_again(path, id):
    """The file of that id, whatever its name is by now, at its place; or today's, at a place that it does not have."""
    if not (match := re.fullmatch(r"([0-9]{1,20})-([0-9]{1,18})", id)):
        raise errors.HTTPError(400, f"no id of a line: {id}")
    for each in [path, *path.parent.glob("*")]:
        if each.name.startswith(path.name) and each.is_file() and each.stat().st_ino == int(match[1]):
            file, place = each.open("rb"), int(match[2])
            file.seek(max(place - 1, 0))
            if place == 0 or file.read(1) == b"\n":  # else another file has the number now
                return file
            file.close()
    file = path.open("rb")
    file.seek(1, os.SEEK_END)  # as if it had been truncated: `follow` tells that
    return file


def at_last_lines(path, count):
    """The file, where its last so many whole lines begin."""
    file, text = path.open("rb"), b""
    place = file.seek(0, os.SEEK_END)
    while place and text.count(b"\n") <= count:
        size = min(LONGEST, place)
        place = file.seek(place - size)
        text = file.read(size) + text
    file.seek(place + len(text) - len(b"\n".join(text.split(b"\n")[-count - 1 :])))
    return file


async def main(file, port):
    async with serve(lambda request: tail(file, request), port=port, signals=True) as server:
        print("tail.py listening on http://{}:{} (Ctrl-C ends it)".format(*server.addresses[0]), file=sys.stderr)
        await server.wait_closed()


if __name__ == "__main__":
    options = argparse.ArgumentParser(description="Follow a log file over HTTP.")
    options.add_argument("file", type=Path)
    options.add_argument("--port", type=int, default=8000)
    asyncio.run(main(**vars(options.parse_args())))
