"""The README tells the truth: its programs run, and its commands print what it shows."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import processes
import pytest

README = Path(__file__).parent.parent / "README.md"
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README.read_text(), re.MULTILINE | re.DOTALL)
PROGRAMS = [text for kind, text in BLOCKS if kind == "python"]


def transcripts() -> list[tuple[str, str]]:
    """Each command of the console blocks, and what the README says it prints."""
    found = []
    for kind, text in BLOCKS:
        if kind == "console":
            for command, output in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", text, re.MULTILINE):
                found.append((command, output))
    return found


def running(command: str, directory: Path, port: int) -> str:
    """What a command of the README prints, with this test's port and interpreter."""
    words = shlex.split(command.replace("localhost:8000", f"127.0.0.1:{port}"))
    if words[0] == "python":
        words[0] = sys.executable
    done = subprocess.run(words, cwd=directory, capture_output=True, text=True, timeout=30, check=True)
    return done.stdout


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A directory with the README's programs, each under the name that its first line gives."""
    for text in PROGRAMS:
        (tmp_path / text.partition("\n")[0].removeprefix("# ")).write_text(text)
    return tmp_path


def test_the_five_line_program_prints_what_the_readme_shows(programs: Path) -> None:
    with processes.running("serve", "hello:count", "--port", "0", cwd=programs) as served:
        shown = [(command, output) for command, output in transcripts() if command.endswith("localhost:8000")]
        assert len(shown) == 3
        for command, output in shown:
            # A JSON array has no line end of its own; the README must break the line there.
            assert running(command, programs, served.port).rstrip("\n") == output.rstrip("\n")


def test_the_whole_server_prints_what_the_readme_shows(programs: Path) -> None:
    with processes.running("serve", "server:router", "--port", "0", cwd=programs) as served:
        shown = [(command, output) for command, output in transcripts() if "localhost:8000/" in command]
        assert len(shown) == 3
        for command, output in shown:
            assert running(command, programs, served.port).rstrip("\n") == output.rstrip("\n")


def test_the_whole_server_runs_as_a_program(programs: Path) -> None:
    program = (programs / "server.py").read_text()
    assert "port=8000, signals=True" in program
    telling = program.replace("port=8000", "port=0").replace(
        "await server.wait_closed()", "print(server.addresses[0][1], flush=True); await server.wait_closed()"
    )
    (programs / "server.py").write_text(telling)
    with subprocess.Popen([sys.executable, "server.py"], cwd=programs, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            port = int(process.stdout.readline())
            assert running("curl -sN http://localhost:8000/count/1", programs, port) == "[0,1]"
        finally:
            process.terminate()
            assert process.wait(10) == 0


def test_the_version_is_the_one_shown(programs: Path) -> None:
    shown = dict(transcripts())
    command = "python -m rawstream --version"
    assert running(command, programs, 0) == shown[command]


def test_the_two_commands_are_targets_of_the_makefile() -> None:
    makefile = (README.parent / "Makefile").read_text()
    commands = re.findall(r"^make (\w+)", next(text for kind, text in BLOCKS if kind == "sh"), re.MULTILINE)
    assert commands == ["run", "test"]
    for target in commands:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)


def test_every_file_that_is_linked_is_there() -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", README.read_text()):
        assert (README.parent / target).exists(), target
