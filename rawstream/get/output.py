"""Where `get` writes: at once, and so that whoever reads slowly stops neither Ctrl-C nor --max-time."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import stat
from collections.abc import Iterator
from typing import TextIO

from rawstream.terminal import on_one_line

_SURE = select.PIPE_BUF
"""Bytes that a pipe takes without blocking, once `select` says that it takes any (POSIX; 4096 on Linux)."""


class Output:
    """A descriptor, to which nothing is written that would have to wait there.

    O_NONBLOCK is not set on it: that belongs to the open file, which the shell and others have open too.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.unread = False
        """Whether it is a pipe whose reader has gone."""

    async def write(self, data: bytes) -> None:
        """Write all of it; a slow reader is waited for, and the server with it. Raises OSError, and BrokenPipeError.

        Cancelling stops it: nobody knows how much was written.
        """
        left = memoryview(data)
        while left := self._taken(left):
            await self._writable()

    def offer(self, data: bytes) -> None:
        """Write what is taken without waiting. Raises as `write` does."""
        self._taken(memoryview(data))

    def _taken(self, data: memoryview) -> memoryview:
        """Write what is taken now; returns the rest."""
        while data and select.select([], [self._descriptor], [], 0)[1]:
            try:
                data = data[os.write(self._descriptor, data[:_SURE]) :]
            except BlockingIOError:
                break
        return data

    async def _writable(self) -> None:
        loop, writable = asyncio.get_running_loop(), asyncio.Event()
        loop.add_writer(self._descriptor, writable.set)
        try:
            await writable.wait()
        finally:
            loop.remove_writer(self._descriptor)

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Cancel the current task when nobody reads any more, as `head -1`: not only at the next write."""
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        assert task is not None

        def gone() -> None:
            loop.remove_reader(self._descriptor)
            self.unread = True
            task.cancel()

        if stat.S_ISFIFO(os.fstat(self._descriptor).st_mode):
            loop.add_reader(self._descriptor, gone)  # of the writing end, this tells an error, and nothing else
        try:
            yield
        finally:
            loop.remove_reader(self._descriptor)


@contextlib.contextmanager
def opened(stream: TextIO) -> Iterator[Output]:
    """The stream's descriptor; of a terminal one of our own, so that O_NONBLOCK is ours alone: a terminal may say that
    there is room, and have less than a write needs. Where it cannot be opened, as after `su`, a write may block."""
    own = None
    if stream.isatty():
        with contextlib.suppress(OSError):
            own = os.open(os.ttyname(stream.fileno()), os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK)
    try:
        yield Output(stream.fileno() if own is None else own)
    finally:
        if own is not None:
            os.close(own)


class Messages:
    """Lines about what happens, for stderr. Whether anybody reads them is no matter."""

    def __init__(self, stream: TextIO | None) -> None:
        self._output = None if stream is None else Output(stream.fileno())  # None by `2>&-`

    async def say(self, text: str) -> None:
        """A line, for which a slow reader is waited."""
        if self._output is not None and text:
            with contextlib.suppress(OSError):
                await self._output.write(_line(text))

    def offer(self, text: str) -> None:
        """A line, unless it would have to be waited for."""
        if self._output is not None and text:
            with contextlib.suppress(OSError):
                self._output.offer(_line(text))


def _line(text: str) -> bytes:
    return f"rawstream: {on_one_line(text)}\n".encode("utf-8", "backslashreplace")
