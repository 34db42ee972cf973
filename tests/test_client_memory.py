"""What a client holds does not grow with what it reads, measured as a process's largest size."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support import Serving

import rawstream
from rawstream import Request, Stream

pytestmark = [pytest.mark.either_loop, pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")]

CLIENT = """
import asyncio, re, sys
import rawstream

def largest():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1]) / 1024

async def main(url, way):
    total = 0
    async with rawstream.fetch(url + "/first") as response:
        await response.body()
    before = largest()
    async with rawstream.fetch(url + "/" + way) as response:
        async for each in getattr(response, way)():
            total += len(each)
    print(total, largest() - before)

asyncio.run(main(*sys.argv[1:]))
"""
ROW = '{"id":1,"name":"of a row","tags":["a","b"],"price":12.5}'
CHUNKS, ROWS = 3200, 200_000


@pytest.mark.parametrize(("way", "total"), [("chunks", CHUNKS * 65536), ("items", ROWS * 4)])
async def test_a_long_body_takes_no_memory(serving: Serving, way: str, total: int) -> None:
    """200 MB in chunks, and an array of 11 MB."""
    rows = ",".join([ROW] * 1000).encode()

    async def handler(request: Request) -> Stream:
        async def array() -> AsyncIterator[bytes]:
            for n in range(ROWS // 1000):
                yield (b"," if n else b"[") + rows
            yield b"]"

        async def noise() -> AsyncIterator[bytes]:
            for _ in range(CHUNKS if request.path == "/chunks" else 1):
                yield bytes(65536)

        if request.path == "/items":
            return Stream(array(), format="bytes", headers={"Content-Type": "application/json"})
        return Stream(noise(), format="bytes")

    served = await serving(handler)
    host, port = served.server.addresses[0]
    process = await rawstream_process(f"http://{host}:{port}", way)
    found, more = process.split()
    assert int(found) == total
    assert float(more) < 12, "MB more than before"


async def rawstream_process(url: str, way: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(Path(rawstream.__file__).parent.parent)}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CLIENT, url, way, stdout=subprocess.PIPE, env=environment
    )
    output, _ = await process.communicate()
    assert process.returncode == 0
    return output.decode()
