"""Runs the commands that the site's pages show, and puts what they print into the pages.

    python docs/refresh.py           writes the pages anew
    python docs/refresh.py --check   writes nothing, and exits with 1 if a page is stale

It is for the pages of docs/explanation and docs/reference. A `console` block is a transcript: each line that begins
with `$ ` is a command, run at the top of the repository, and what follows is what it prints. Spaces and line ends do
not count, nor does how `-X METHOD, --request METHOD` is shortened: Python's releases write help texts differently.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TRANSCRIPT = re.compile(r"(?<=^```console\n).*?(?=^```$)", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", re.MULTILINE)
COLUMNS = 100
PATIENCE = 60.0  # seconds for a command, which takes one on a machine with nothing else to do


def pages() -> list[Path]:
    """Those with commands to run."""
    found = [*(ROOT / "docs" / "explanation").glob("*.md"), *(ROOT / "docs" / "reference").glob("*.md")]
    return sorted(page for page in found if TRANSCRIPT.search(page.read_text(encoding="utf-8")))


def printed(command: str) -> str:
    """What a command prints. Raises SystemExit if it fails, and TimeoutExpired."""
    words = shlex.split(command)
    if words[0] == "python":
        words[0] = sys.executable
    own = {"COLUMNS": str(COLUMNS), "PYTHONUTF8": "1", "PYTHONPATH": str(ROOT), "NO_COLOR": "1"}
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAWSTREAM_")} | own
    done = subprocess.run(
        words, capture_output=True, cwd=ROOT, env=environment, encoding="utf-8", timeout=PATIENCE, check=False
    )
    if done.returncode or done.stderr:
        raise SystemExit(f"{command}: exits with {done.returncode}, and says: {done.stderr}")
    return done.stdout


def words(text: str) -> list[str]:
    """What does not differ from one Python to another."""
    return re.sub(r"(?<=\s)(-\w) [A-Z:]+, --", r"\1, --", text).split()


def filled(page: str) -> str:
    """A page's text with what its commands print now. One that prints the same words is left as it is."""

    def entry(match: re.Match[str]) -> str:
        now = printed(match[1])
        return match[0] if words(now) == words(match[2]) else f"$ {match[1]}\n{now}"

    return TRANSCRIPT.sub(lambda match: COMMAND.sub(entry, match[0]), page)


def main(check: bool) -> int:
    """Fill all pages, or only look whether they are; returns the exit code."""
    stale = []
    for page in pages():
        old = page.read_text(encoding="utf-8")
        new = filled(old)
        if new != old:
            stale.append(page.name)
            if not check:
                page.write_text(new, encoding="utf-8")
    if stale:
        print("stale:" if check else "written:", *stale)
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv[1:]))
