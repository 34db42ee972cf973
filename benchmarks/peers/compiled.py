"""Peers that are compiled: once for each version of their source, and kept in the user's cache."""

import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.peers import CACHE
from benchmarks.peers.common import announce, inherited_socket


def become(
    source: Path,
    command: Callable[[str], Sequence[str]],
    environment: dict[str, str] | None = None,
    arguments: Sequence[str] = (),
) -> None:
    """Compile `source` if need be (`command` is given the file to make), listen, and become the program.

    It is given the number of its listening socket, and `arguments`.
    """
    program = _built(source, command, {**os.environ, **(environment or {})})
    sock = inherited_socket()
    announce(sock.getsockname()[1])
    os.execv(program, [program.name, str(sock.fileno()), *arguments])


def _built(source: Path, command: Callable[[str], Sequence[str]], environment: dict[str, str]) -> Path:
    CACHE.mkdir(parents=True, exist_ok=True)
    program = CACHE / f"{source.stem}-{hashlib.sha256(source.read_bytes()).hexdigest()[:16]}"
    if not program.exists():
        with tempfile.TemporaryDirectory(dir=CACHE) as directory:
            made = os.path.join(directory, "program")
            subprocess.run(command(made), check=True, stdout=sys.stderr, env=environment)
            os.replace(made, program)
    return program
