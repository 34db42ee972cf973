"""Runs the tutorial's programs and commands, and puts what they print, and functions of their source, into the pages.

    python docs/tutorial/capture.py          writes the pages anew
    python docs/tutorial/capture.py --check  writes nothing, and exits with 1 if a page is stale

In a page, what stands between one of these lines and `<!-- end -->` is:

    <!-- output -->         what the step's program prints
    <!-- code NAME -->      a function or class of it
    <!-- shell COMMAND -->  what a command prints while a server runs, `python -m rawstream --wire`
    <!-- wire -->           what that server has said since the last such line; `<!-- wire | grep x -->` filters it

What was measured may differ from run to run: figures behind a `~`, and times, dates and ports of the wire log. Pages
that differ in nothing else are not stale.
"""

from __future__ import annotations

import ast
import difflib
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
BLOCK = re.compile(r"<!-- (?P<kind>output|code|shell|wire)(?: (?P<what>[^\n]+))? -->\n.*?<!-- end -->", re.DOTALL)
PATIENCE = 60.0  # seconds for a program, which takes three on a machine with nothing else to do
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": str(HERE.parents[1]),
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",  # `python` is the one that runs this
    "PYTHONUTF8": "1",
    "PYTHONUNBUFFERED": "1",
}
MEASURED = re.compile(
    r"~[\d.]+"
    r"|^ *\d+\.\d{6}(?= #)"
    r"|(?<=from 127\.0\.0\.1:)\d+"
    r"|(?<=Date: ).* GMT|(?<=X-Request-Id: )[\w-]+"
    r'|(?<="now":")[^"]*'
    r"|(?<=User-Agent: curl/)[\d.]+"
    r"|(?<=received )\d+(?= B)"  # curl's name has its version in it
    r"|\n[^\n]* the client (?:caught up: resumed|is slow: paused)$|(?<= lost: ).*"  # a busy machine makes less at once
    r"|(?<=^rawstream )[\w.]+(?= listening)|\((?:asyncio|uvloop)\)$",
    re.MULTILINE,
)


def programs() -> list[Path]:
    """The steps, in their order."""
    return sorted(HERE.glob("[0-9][0-9]_*.py"))


def pages(program: Path) -> list[Path]:
    """The page of a program, in each language; English first."""
    return sorted(HERE.glob(f"{program.stem}.md")) + sorted(HERE.glob(f"{program.stem}.*.md"))


def run(program: Path) -> str:
    """What a program prints. Raises SystemExit if it fails, and TimeoutExpired."""
    command = [sys.executable, "-W", "error", str(program)]
    done = subprocess.run(
        command, capture_output=True, env=ENVIRONMENT, text=True, encoding="utf-8", timeout=PATIENCE, check=False
    )
    if done.returncode or done.stderr:
        raise SystemExit(f"{program.name} exits with {done.returncode}, and says: {done.stderr}")
    return done.stdout


def source(program: Path, name: str) -> str:
    """A function or class of a program, or `Class.method`, moved to the left margin."""
    text = program.read_text(encoding="utf-8")
    node: ast.AST = ast.parse(text)
    for part in name.split("."):
        inner = [each for each in ast.iter_child_nodes(node) if getattr(each, "name", None) == part]
        if not inner:
            raise SystemExit(f"{program.name} has no {name}")
        node = inner[0]
    assert isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    first = min([node.lineno, *(each.lineno for each in node.decorator_list)])
    lines = text.splitlines()[first - 1 : node.end_lineno]
    return "\n".join(line[node.col_offset :] for line in lines) + "\n"


class Wire:
    """`python -m rawstream --wire` beside the commands of a page. It starts with the first of them.

    The commands name port 8000, which may be taken here. So the server listens on some port of four digits, with which
    as many bytes are sent, and what is shown says 8000 again. It has the loop of who has installed nothing else.
    """

    def __init__(self) -> None:
        self.server: subprocess.Popen[str] | None = None
        self.port = self.connections = 0
        self.said = ""  # what `wire` has given already

    def __enter__(self) -> Wire:
        self.log = tempfile.TemporaryFile()
        return self

    def __exit__(self, *_: object) -> None:
        if self.server is not None:
            self.server.terminate()
            self.server.wait(PATIENCE)
        self.log.close()

    def shell(self, command: str) -> str:
        """What a command prints, which makes one connection to the server. Raises SystemExit if it prints nothing."""
        if self.server is None:
            self._start()
        self.connections += 1
        here = command.replace(":8000", f":{self.port}")
        done = subprocess.run(
            here, shell=True, capture_output=True, env=ENVIRONMENT, encoding="utf-8", timeout=PATIENCE, check=False
        )
        if not done.stdout:
            raise SystemExit(f"{command} prints nothing, and says: {done.stderr}")
        return self._with_8000(done.stdout)

    def wire(self, filtered: str = "") -> str:
        """What the server has said of the connections since the last time, through `| grep x` if that is given."""
        self._wait_for(r" --- (closed|lost)", self.connections)
        text = self._read()
        new, self.said = text.removeprefix(self.said), text
        done = subprocess.run(
            f"cat {filtered}", shell=True, input=new, capture_output=True, encoding="utf-8", check=True
        )
        return self._with_8000(done.stdout)

    def _with_8000(self, text: str) -> str:
        return text.replace(f":{self.port}", ":8000")

    def _start(self) -> None:
        for self.port in random.sample(range(1100, 10000), 3):
            self.log.seek(0)
            self.log.truncate()
            command = [sys.executable, "-m", "rawstream", "--wire", "--port", str(self.port), "--loop", "asyncio"]
            self.server = subprocess.Popen(command, stderr=self.log, env=ENVIRONMENT, text=True)
            if self._wait_for(" listening on ", 1):
                return
        raise SystemExit(f"python -m rawstream does not start: {self._read()}")

    def _wait_for(self, pattern: str, times: int) -> bool:
        """Wait until the server has said something so many times; False if it ends before, or after a minute."""
        assert self.server is not None
        deadline = time.monotonic() + PATIENCE
        while len(re.findall(pattern, self._read())) < times:
            if self.server.poll() is not None or time.monotonic() > deadline:
                return False
            time.sleep(0.01)
        return True

    def _read(self) -> str:
        """All that the server has said."""
        return os.pread(self.log.fileno(), 2**24, 0).decode("utf-8")


def blocks(program: Path) -> list[str]:
    """What stands in the blocks of a program's pages now, each from its first line to its last."""
    found = []
    with Wire() as wire:
        for match in BLOCK.finditer(pages(program)[0].read_text(encoding="utf-8")):
            kind, what = match["kind"], match["what"] or ""
            if kind == "output":
                body = f"```console\n$ python docs/tutorial/{program.name}\n{run(program)}"
            elif kind == "code":
                body = f"```python\n{source(program, what)}"
            elif kind == "shell":
                body = f"```console\n$ {what}\n{wire.shell(what)}"
            else:
                command = f"python -m rawstream --wire {what and '2>&1 '}{what}".rstrip()
                body = f"```console\n$ {command}\n{wire.wire(what)}"
            found.append(f"{match[0].splitlines()[0]}\n{body.rstrip()}\n```\n<!-- end -->")
    return found


def filled(page: str, now: list[str]) -> str:
    """The page with its blocks as they are now. A block in which only what was measured differs is left as it is."""
    left = iter(now)

    def block(match: re.Match[str]) -> str:
        new = next(left)
        return match[0] if MEASURED.sub("", new) == MEASURED.sub("", match[0]) else new

    return BLOCK.sub(block, page)


def changed(program: Path, now: list[str]) -> list[tuple[Path, str, str]]:
    """Its pages that are stale, each with its text and what that should be."""
    texts = [(page, page.read_text(encoding="utf-8")) for page in pages(program)]
    for page, old in texts:
        if len(BLOCK.findall(old)) != len(now):
            raise SystemExit(f"{page.name} has not as many blocks as the page in English")
    return [(page, old, new) for page, old in texts if (new := filled(old, now)) != old]


def main(check: bool) -> int:
    """Fill all pages, or only look whether they are; returns the exit code."""
    stale = []
    with ThreadPoolExecutor(4) as pool:  # most of their time they wait
        found = list(pool.map(blocks, programs()))
    for program, now in zip(programs(), found, strict=True):
        if not changed(program, now):
            continue
        # Once more, alone: a busy machine may send in two pieces what is ready together.
        for page, old, new in changed(program, blocks(program)):
            stale.append(page.name)
            if check:
                print(*difflib.unified_diff(old.splitlines(), new.splitlines(), page.name, "now", n=2), sep="\n")
            else:
                page.write_text(new, encoding="utf-8")
    if stale:
        print("stale:" if check else "written:", *stale)
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv[1:]))
