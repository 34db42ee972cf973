"""docs/tutorial tells the truth: its programs run alone, its pages show what they print, its links lead somewhere."""

from __future__ import annotations

import ast
import importlib.util
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rawstream import Server, events

ROOT = Path(__file__).parent.parent
TUTORIAL = ROOT / "docs" / "tutorial"

_spec = importlib.util.spec_from_file_location("capture", TUTORIAL / "capture.py")
assert _spec is not None
assert _spec.loader is not None
capture = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(capture)

PROGRAMS = capture.programs()
PAGES = sorted(TUTORIAL.glob("*.md"))
STEPS = [page for program in PROGRAMS for page in capture.pages(program)]

either_loop = pytest.mark.either_loop


def name(path: Path) -> str:
    return path.name


def without_blocks(page: Path) -> str:
    """A page's prose."""
    return re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


@either_loop
def test_there_are_ten_steps_and_each_has_a_page() -> None:
    assert [program.name[:2] for program in PROGRAMS] == [f"{step:02}" for step in range(1, 11)]
    for program in PROGRAMS:
        assert program.with_suffix(".md") in PAGES


@either_loop
def test_programs_run_alone_and_pages_show_what_they_and_rawstream_print(capsys: pytest.CaptureFixture[str]) -> None:
    assert capture.main(check=True) == 0, f"{capsys.readouterr().out}: run {capture.__file__}"


@either_loop
@pytest.mark.parametrize("program", PROGRAMS, ids=name)
def test_a_program_has_at_most_80_lines_and_needs_only_h11(program: Path) -> None:
    text = program.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 80
    for node in ast.walk(ast.parse(text)):
        found = [each.name for each in node.names] if isinstance(node, ast.Import) else []
        found += [node.module or "."] if isinstance(node, ast.ImportFrom) else []
        for module in found:
            assert module.split(".")[0] in {*sys.stdlib_module_names, "h11"}


@either_loop
def test_the_server_of_the_step_on_events_ends_in_silence_by_ctrl_c(tmp_path: Path) -> None:
    text = (TUTORIAL / "06_events.py").read_text(encoding="utf-8")
    assert text.count(" 8000 if ") == 1
    heed = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # even where it is ignored
    (tmp_path / "events.py").write_text(heed + text.replace(" 8000 if ", " 0 if "), encoding="utf-8")
    command = [sys.executable, "events.py", "--serve"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as server:
        assert server.stdout is not None
        assert server.stdout.readline().endswith("Ctrl-C ends it\n")
        server.send_signal(signal.SIGINT)
        assert server.stdout.read() == ""
    assert server.returncode == 0


@either_loop
@pytest.mark.parametrize("page", STEPS, ids=name)
def test_a_page_ends_with_exercises_whose_answers_can_be_checked(page: Path) -> None:
    last = without_blocks(page).split("\n## ")[-1]
    assert last.startswith(("Try this\n", "试一试\n"))
    assert page.read_text(encoding="utf-8").count("<!-- output -->") == 1
    exercises = re.split(r"^\d\. ", last, flags=re.MULTILINE)[1:]
    assert len(exercises) >= 2
    for exercise in exercises:
        assert re.search(r"\*[(（].+[)）]\*", exercise, re.DOTALL), exercise


@either_loop
@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_to_files_and_modules_that_are_named_exist(page: Path) -> None:
    prose = without_blocks(page)
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", prose):
        assert "://" in target or (page.parent / target).exists(), target
    for module in re.findall(r"`(rawstream/[\w/]+\.py|tests/\w+\.py)`", prose):
        assert (ROOT / module).exists(), module


@either_loop
def test_what_the_walk_names_is_in_the_source() -> None:
    package = ROOT / "rawstream"
    walk = without_blocks(ROOT / "docs" / "reading.md").split("## Questions")[0]
    for paragraph in re.split(r"\n(?=\d+\. )", walk)[1:]:
        modules = re.findall(r"`([\w/]+\.py)`", paragraph)
        found = [path for each in modules for path in (package / each, package / "channels" / each) if path.exists()]
        assert len(found) == len(modules), paragraph
        source = "".join(path.read_text(encoding="utf-8") for path in found)
        for word in re.findall(r"`(_?[a-z]\w+|[A-Z]\w+)(?:\.\w+)?`", paragraph):
            assert word in source or (package / f"{word}.py").exists(), word


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tutorial of one step, which prints a word and a measured figure."""
    (tmp_path / "01_small.py").write_text('def word():\n    return "word"\n\n\nprint(f"{word()}: ~12.5 ms")\n')
    (tmp_path / "01_small.md").write_text("<!-- code word -->\n<!-- end -->\n<!-- output -->\n<!-- end -->\n")
    monkeypatch.setattr(capture, "HERE", tmp_path)
    return tmp_path


@either_loop
def test_a_page_is_filled_and_then_not_stale(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = small / "01_small.md"
    assert capture.main(check=True) == 1
    assert "01_small.md" in capsys.readouterr().out
    assert "word" not in page.read_text().replace("code word", "")
    assert capture.main(check=False) == 0
    assert 'def word():\n    return "word"\n' in page.read_text()
    assert "word: ~12.5 ms\n" in page.read_text()
    assert capture.main(check=True) == 0


@either_loop
def test_only_what_is_not_a_measured_figure_makes_a_page_stale(small: Path) -> None:
    page = small / "01_small.md"
    capture.main(check=False)
    page.write_text(page.read_text().replace("~12.5", "~13"))
    assert capture.main(check=True) == 0
    page.write_text(page.read_text().replace("word: ", "words: "))
    assert capture.main(check=True) == 1


@either_loop
def test_a_program_that_fails_is_told(small: Path) -> None:
    (small / "01_small.py").write_text("1 / 0\n")
    (small / "01_small.md").write_text("<!-- output -->\n<!-- end -->\n")
    with pytest.raises(SystemExit, match="ZeroDivisionError"):
        capture.main(check=True)


@either_loop
def test_the_wire_log_is_shown_and_is_stale_when_other_bytes_are_sent(small: Path) -> None:
    page = small / "01_small.md"
    page.write_text("<!-- shell curl -s http://localhost:8000/healthz -->\n<!-- end -->\n<!-- wire -->\n<!-- end -->\n")
    capture.main(check=False)
    text = page.read_text()
    assert "$ curl -s http://localhost:8000/healthz\nok\n```" in text
    assert "Host: localhost:8000\\r\\n" in text
    measured = r"(?<=\.)\d{6}(?= #)|(?<=from 127\.0\.0\.1:)\d+|(?<=received )\d+|(?<=curl/)\d+"
    other = re.sub(measured, "111111", text).replace(" GMT", "0 GMT")
    assert other != text
    page.write_text(other)
    assert capture.main(check=True) == 0
    page.write_text(text.replace("    ok", "    OK"))
    assert capture.main(check=True) == 1


@either_loop
def test_pages_with_other_blocks_than_the_english_one_are_told(small: Path) -> None:
    (small / "01_small.zh-CN.md").write_text("<!-- output -->\n<!-- end -->\n")
    with pytest.raises(SystemExit, match=r"01_small\.zh-CN\.md"):
        capture.main(check=True)


@either_loop
@pytest.mark.parametrize("program", PROGRAMS, ids=name)
def test_what_pages_call_things_of_the_demo_page_is_on_it(program: Path) -> None:
    demo = (ROOT / "demo.html").read_text(encoding="utf-8")
    for page in capture.pages(program):
        for paragraph in without_blocks(page).split("\n\n"):
            if "<http://localhost:8000>" in paragraph:
                labels = re.findall(r"(?<![*(])\*([^*()（）]+)\*", paragraph)
                assert labels
                for label in labels:
                    assert " ".join(label.split()) in demo, label


async def test_the_last_step_in_rawstream_is_a_server(orderly: None) -> None:
    text = (TUTORIAL / "10_resume.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"^```python\n(import .*?)^```$", text, re.MULTILINE | re.DOTALL)
    seen: list[Any] = []

    async def use(server: Server) -> None:
        url = "http://{}:{}/news".format(*server.addresses[0][:2])
        async with events(url, last_event_id="earliest") as source:
            seen.append((await anext(aiter(source))).data)

    assert program.count("port=8000, signals=True") == program.count("server.wait_closed()") == 1
    program = program.replace("port=8000, signals=True", "port=0").replace("server.wait_closed()", "use(server)")
    names: dict[str, Any] = {"__name__": "program", "use": use}
    exec(compile(program, "10_resume.md", "exec"), names)
    await names["main"]()
    assert seen == ["Hello"]
