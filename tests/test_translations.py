"""A page and its translation say the same: as many headings, the same code, links, tables and figures.

Whoever changes one of the two is told by a failing test to change the other. What the words mean, people must check.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TRANSLATED = sorted([*ROOT.glob("*.zh-CN.md"), *(ROOT / "docs").rglob("*.zh-CN.md")])

FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
MEASURED = re.compile(r"~[\d.]+|^ *\d+\.\d{6}(?= #)|(?<=0\.1:)\d+$|\d\d:\d\d:\d\d GMT|\d\d:\d\d\.\d+Z", re.MULTILINE)

pytestmark = pytest.mark.either_loop


def original(page: Path) -> Path:
    return page.with_name(page.name.replace(".zh-CN", ""))


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def headings(text: str) -> list[str]:
    """The levels of the headings, in their order: "##" and so on."""
    return re.findall(r"^(#+) ", FENCED.sub("", text), re.MULTILINE)


def lists(text: str) -> list[str]:
    """The marks of list items, in their order: "*", "1." and so on."""
    return re.findall(r"^(\*|\d+\.) ", FENCED.sub("", text), re.MULTILINE)


def blocks(text: str) -> list[str]:
    """The fenced blocks, without what differs from run to run."""
    return [MEASURED.sub("~", block) for block in FENCED.findall(text)]


def links(text: str, page: str) -> Counter[str]:
    """Where the links and images lead, whatever the language; but for the one to the page's other language."""
    targets = re.findall(r"\]\(([^)\s]+)\)|<(https?://[^>]+)>", FENCED.sub("", text))
    found = Counter((one or other).replace(".zh-CN", "") for one, other in targets)
    del found[page]
    return found


def tables(text: str) -> list[list[list[list[str]]]]:
    """Of each table the rows, of each row the cells, of each cell the figures."""
    found = re.findall(r"^(?:\|.*\|\n?)+", FENCED.sub("", text), re.MULTILINE)
    return [[[figures(cell) for cell in row.split("|")] for row in table.splitlines()] for table in found]


def figures(text: str) -> list[str]:
    """The numbers in a text, in their order of size: another language may need another order."""
    return sorted(re.findall(r"(?<![A-Za-z\d])(?:\d[\d.,:]*\d|\d)", text))


def sections(text: str) -> list[list[str]]:
    """Of each section the figures in its prose."""
    prose = re.sub(r"\]\([^)]*\)", "]", FENCED.sub("", text))
    return [figures(section) for section in re.split(r"^#+ ", prose, flags=re.MULTILINE)]


def codes(text: str) -> list[set[str]]:
    """Of each section the words in code, which no language changes."""
    prose = re.sub(r"\s*\n\s*", " ", re.sub(r"^#+ .*", "\x00", FENCED.sub("", text), flags=re.MULTILINE))
    return [set(re.findall(r"`([^`]+)`", section)) for section in prose.split("\x00")]


def differences(one: str, other: str, page: str) -> list[str]:
    """In what two texts of one page, called `page` in the original, are not the same."""
    return [
        what
        for what, same in (
            ("headings", headings(one) == headings(other)),
            ("lists", lists(one) == lists(other)),
            ("code blocks", blocks(one) == blocks(other)),
            ("links", links(one, page) == links(other, page)),
            ("tables", tables(one) == tables(other)),
            ("figures", sections(one) == sections(other)),
            ("words in code", codes(one) == codes(other)),
        )
        if not same
    ]


@pytest.mark.parametrize("page", TRANSLATED, ids=name)
def test_a_page_and_its_translation_say_the_same(page: Path) -> None:
    one, other = (each.read_text(encoding="utf-8") for each in (original(page), page))
    assert differences(one, other, original(page).name) == []


@pytest.mark.parametrize("page", TRANSLATED, ids=name)
def test_a_translation_leads_to_files_that_are_there_and_to_its_own_language(page: Path) -> None:
    text = FENCED.sub("", page.read_text(encoding="utf-8"))
    assert f"[English]({original(page).name})" in text.split("##")[0]
    for words, target in re.findall(r"\[([^\]]+)\]\((?!https?:)([^)#]+)[^)]*\)", text):
        assert (page.parent / target).exists(), target
        if words != "English" and not target.endswith(".zh-CN.md"):
            translation = page.parent / (target.removesuffix(".md") + ".zh-CN.md")
            assert not translation.exists(), f"{target} has a translation"


def test_the_readme_and_the_whole_tutorial_are_translated() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs" / "tutorial").glob("*.md")]
    assert {page for page in pages if ".zh-CN." not in page.name} <= {original(page) for page in TRANSLATED}


PAIR = "# A\n\n## B\n\n* list\n\n```sh\nmake\n```\n\n[c](c.md), in 30 s, `d`\n\n| e | f |\n|---|---|\n| g | 1,000 |\n"


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("# A", "# 甲", []),
        ("(c.md)", "(c.zh-CN.md)", []),
        ("| g |", "| 庚 |", []),
        ("\n## B", "\n## B\n\n## H", ["headings", "figures", "words in code"]),
        ("## B", "### B", ["headings"]),
        ("* list\n", "* list\n* h\n", ["lists"]),
        ("make\n", "make run\n", ["code blocks"]),
        ("```\n\n[c]", "```\n\n```sh\nls\n```\n\n[c]", ["code blocks"]),
        ("(c.md)", "(h.md)", ["links"]),
        ("| g | 1,000 |\n", "| g | 1,000 |\n| h | |\n", ["tables"]),
        ("1,000", "1,001", ["tables", "figures"]),
        ("30 s", "40 s", ["figures"]),
        ("`d`", "`h`", ["words in code"]),
    ],
)
def test_a_change_on_one_side_is_noticed(old: str, new: str, told: list[str]) -> None:
    assert PAIR.count(old) == 1
    assert differences(PAIR, PAIR.replace(old, new), "page.md") == told
    assert differences(PAIR.replace(old, new), PAIR, "page.md") == told
