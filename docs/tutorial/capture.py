"""Runs the tutorial's programs, and puts what they print, and functions of their source, into the pages.

    python docs/tutorial/capture.py          writes the pages anew
    python docs/tutorial/capture.py --check  writes nothing, and exits with 1 if a page is stale

In a page, what stands between `<!-- output -->` and `<!-- end -->` is what its program prints, and what stands between
`<!-- code NAME -->` and `<!-- end -->` is a function or class of it. A figure behind a `~` was measured, and may
differ from run to run: pages that differ in nothing else are not stale.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
BLOCK = re.compile(r"<!-- (output|code (?P<name>[\w.]+)) -->\n.*?<!-- end -->", re.DOTALL)
PATIENCE = 60.0  # seconds for a program, which takes three on a machine with nothing else to do


def programs() -> list[Path]:
    """The steps, in their order."""
    return sorted(HERE.glob("[0-9][0-9]_*.py"))


def pages(program: Path) -> list[Path]:
    """The page of a program, in each language."""
    return sorted(HERE.glob(f"{program.stem}.md")) + sorted(HERE.glob(f"{program.stem}.*.md"))


def run(program: Path) -> str:
    """What a program prints. Raises CalledProcessError if it fails, and TimeoutExpired."""
    command = [sys.executable, "-W", "error", str(program)]
    environment = {**os.environ, "PYTHONUTF8": "1"}
    done = subprocess.run(
        command, capture_output=True, env=environment, text=True, encoding="utf-8", timeout=PATIENCE, check=False
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


def filled(page: str, program: Path, printed: str) -> str:
    """The page with its blocks as they are now. A block in which only measured figures differ is left as it is."""

    def block(match: re.Match[str]) -> str:
        if match["name"]:
            body = f"```python\n{source(program, match['name'])}```\n"
        else:
            body = f"```console\n$ python docs/tutorial/{program.name}\n{printed}```\n"
        new = f"<!-- {match[1]} -->\n{body}<!-- end -->"
        return match[0] if without_figures(new) == without_figures(match[0]) else new

    return BLOCK.sub(block, page)


def without_figures(text: str) -> str:
    """What does not change from run to run."""
    return re.sub(r"~[\d.]+", "~", text)


def main(check: bool) -> int:
    """Fill all pages, or only look whether they are; returns the exit code."""
    stale = []
    for program in programs():
        printed = run(program)
        for page in pages(program):
            old = page.read_text(encoding="utf-8")
            new = filled(old, program, printed)
            if new != old:
                stale.append(page.name)
                if not check:
                    page.write_text(new, encoding="utf-8")
    if stale:
        print("stale:" if check else "written:", *stale)
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv[1:]))
