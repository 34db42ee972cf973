"""No page of docs/ shows a program or a command that nobody runs; most of them run here."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import textwrap
from fnmatch import fnmatch
from pathlib import Path

import processes
import pytest
from support import Serving

import rawstream
from benchmarks.cli import _parser as benchmarks_parser
from rawstream import Router, fetch

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"

HERE = "tests/test_docs_blocks.py"
RUN_BY = [
    ("benchmarks.md", {"console"}, HERE),
    ("channels.md", {"python"}, "tests/test_docs.py"),
    ("client.md", {"python"}, HERE),
    ("explanation/*.md", {"console", "python"}, HERE),
    ("explanation/six-connections.md", {"js"}, "tests/browser/test_docs_scripts.py"),
    ("how-to/*.md", {"console", "python"}, "tests/test_how_to.py"),
    ("probe.md", {"python"}, HERE),
    ("proxies.md", {"js"}, "tests/browser/test_tabs.py"),
    ("reference/*.md", {"console", "python"}, HERE),
    ("tutorial/*.md", {"console", "python"}, "tests/test_tutorial.py"),
    ("tutorial/*.md", {"js"}, "tests/browser/test_docs_scripts.py"),
    ("tutorial/README*.md", {"sh"}, HERE),
]
"""Pages, kinds of blocks, and who runs them: all of them, also one that is added."""

RUNNABLE = {"bash", "console", "js", "pycon", "python", "sh"}
BLOCK = re.compile(r"^( *)```([\w-]*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
EXCERPT = re.compile(r"^<!-- from (\S+) -->\n```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)

_spec = importlib.util.spec_from_file_location("refresh", DOCS / "refresh.py")
assert _spec is not None
assert _spec.loader is not None
refresh = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(refresh)

EXPLAINED = sorted([*(DOCS / "explanation").glob("*.md"), *(DOCS / "reference").glob("*.md")])

either_loop = pytest.mark.either_loop


def name(path: Path) -> str:
    return path.relative_to(DOCS).as_posix()


def blocks(page: Path) -> list[tuple[str, str]]:
    """The language and the text of each block."""
    return [(kind, text) for _, kind, text in BLOCK.findall(page.read_text(encoding="utf-8"))]


def programs(page: str) -> list[str]:
    return [text for kind, text in blocks(DOCS / page) if kind == "python"]


@either_loop
@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.md")), ids=name)
def test_somebody_runs_the_blocks_of_a_page(page: Path) -> None:
    for kind in RUNNABLE & {kind for kind, _ in blocks(page)}:
        runners = [runner for pages, kinds, runner in RUN_BY if fnmatch(name(page), pages) and kind in kinds]
        assert runners, f"nobody runs the {kind} of docs/{name(page)}: write a test, and add it to RUN_BY"
        assert (ROOT / runners[0]).exists(), runners[0]


@either_loop
@pytest.mark.parametrize("page", refresh.pages(), ids=name)
def test_a_command_prints_what_its_page_shows(page: Path) -> None:
    """If it does not: `python docs/refresh.py`."""
    text = page.read_text(encoding="utf-8")
    assert refresh.filled(text) == text


@either_loop
@pytest.mark.parametrize("page", EXPLAINED, ids=name)
def test_python_on_a_page_is_taken_from_a_file_word_for_word(page: Path) -> None:
    excerpts = EXCERPT.findall(page.read_text(encoding="utf-8"))
    assert [code for _, code in excerpts] == [text for kind, text in blocks(page) if kind == "python"]
    for path, code in excerpts:
        assert code in (ROOT / path).read_text(encoding="utf-8"), f"{path} has changed"


@either_loop
def test_all_public_names_are_in_the_reference() -> None:
    pages = "".join(page.read_text(encoding="utf-8") for page in (DOCS / "reference").glob("*.md"))
    described = re.findall(r"^\.\. auto(?:class|function|module):: rawstream\.([\w.]+)$", pages, re.MULTILINE)
    assert set(rawstream.__all__) - {*described} == set()


@either_loop
def test_a_page_with_what_its_command_does_not_print_is_stale(tmp_path: Path) -> None:
    page = "```console\n$ python -c 'print(1, 2)'\n1\n```\n"
    assert refresh.filled(page) == page.replace("\n1\n", "\n1 2\n")
    assert refresh.filled(page.replace("\n1\n", "\n1   2\n")) == page.replace("\n1\n", "\n1   2\n")
    with pytest.raises(SystemExit, match="exits with 3"):
        refresh.filled(page.replace("print(1, 2)", "exit(3)"))


# -- pages outside explanation and reference ---------------------------------------------------------------------------


@either_loop
@pytest.mark.parametrize("page", sorted((DOCS / "tutorial").glob("README*.md")), ids=name)
def test_the_tutorial_activates_the_environment_that_make_makes(page: Path) -> None:
    assert [text for kind, text in blocks(page) if kind == "sh"] == [". .venv/bin/activate\n"]
    assert "VENV := .venv" in (ROOT / "Makefile").read_text(encoding="utf-8")


def running(program: str, port: int) -> list[str]:
    """The lines that a program prints, with the demo's port."""
    assert "127.0.0.1:8000" in program
    command = [sys.executable, "-c", program.replace("127.0.0.1:8000", f"127.0.0.1:{port}")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, env=environment)
    return done.stdout.splitlines()


@either_loop
def test_the_client_s_programs_read_the_demo() -> None:
    whole, part = programs("client.md")
    around = "import asyncio, rawstream\nasync def main():\n{}\nasyncio.run(main())\n"
    with processes.running("--port", "0") as demo:
        assert len(running(whole, demo.port)) == 5
        [line] = running(around.format(textwrap.indent(part + "        break\n", "    ")), demo.port)
        assert re.fullmatch(r'\d+ \{"n":\d+,.*\}', line)


async def test_the_probe_s_program_answers_the_probe(serving: Serving) -> None:
    [program] = programs("probe.md")
    names: dict[str, Router] = {}
    exec(program, names)
    served = await serving(names["router"])
    url = "http://{}:{}/probe?count=2&interval=0".format(*served.server.addresses[0])
    async with fetch(url, headers={"Accept": "application/x-ndjson"}) as response:
        assert [item["rawstream-probe"] async for item in response.items()] == [1, 2]


@either_loop
def test_the_benchmarks_page_shows_commands_that_there_are() -> None:
    shown = [text for kind, text in blocks(DOCS / "benchmarks.md") if kind == "console"]
    for command in re.findall(r"^\$ ([^#\n]+)", "".join(shown), re.MULTILINE):
        match command.split():
            case ["make", target]:
                assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
            case ["python", "-m", "benchmarks", *arguments]:
                benchmarks_parser().parse_args(arguments)
            case other:
                pytest.fail(f"nobody checks {other}")
