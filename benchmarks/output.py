"""Where results go: tried before anything is measured, and held against a second run."""

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class NotWritable(Exception):
    """Results can't be written; the message says in a line where and why."""


@contextmanager
def claimed(directory: Path, command: str) -> Iterator[None]:
    """Make the directory and hold it for one run. Raises NotWritable.

    A run takes half an hour: that its files can't be written, or that another run would overwrite them, has to be known
    before. The lock (`flock`) is on the directory itself, so nothing is left behind when a run is killed.
    """
    path = directory
    try:
        directory.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=directory).close()
        for path in (directory / f"{command}{suffix}" for suffix in (".json", ".html", ".md")):
            if path.exists():
                path.open("ab").close()
        held = os.open(directory, os.O_RDONLY)
    except OSError as exc:
        raise NotWritable(f"can't write results to {path}: {exc.strerror}") from exc
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(held)
        raise NotWritable(f"another run writes to {directory}: wait for it, or give another --output") from None
    try:
        yield
    finally:
        os.close(held)
