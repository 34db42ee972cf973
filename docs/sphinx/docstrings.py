"""Docstrings for the reference. In the source they are plain text, made to be read there; here they become reST.

What a docstring of rawstream has: paragraphs; lines `name: what it is`, whose continuation is indented; programs, which
are indented and stand behind an empty line; names in backticks; and names of errors.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from typing import Any

from sphinx.application import Sphinx

from rawstream import errors
from rawstream.outgoing import UNSET

ERRORS = {name for name, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, Exception)}
MADE_FOR_YOU = {
    "rawstream.Channel",
    "rawstream.Request",
    "rawstream.Run",
    "rawstream.Server",
    "rawstream.client.ClientResponse",
    "rawstream.client.EventSource",
    "rawstream.formats.Encoder",
}
"""Classes whose objects rawstream makes: their constructors are not shown."""

_QUOTED = re.compile(r"``?([^`]+)``?")
_ERROR = re.compile(rf"(?<![\w.`~])(?:errors\.)?({'|'.join(sorted(ERRORS))})\b(?!`)")
_UNSET = f"<{type(UNSET).__module__}.{type(UNSET).__qualname__} object>"  # as Sphinx writes it
_DOTTED = r"[A-Za-z_][\w.]*"
_NAMES = r"[a-z_]+(?:, [a-z_]+)*"


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", _rewrite)
    app.connect("autodoc-process-signature", _sign)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _sign(
    app: Sphinx, what: str, name: str, thing: Any, options: Any, signature: str | None, returns: str | None
) -> tuple[str, str | None] | None:
    if name in MADE_FOR_YOU:
        return "", None
    return None if signature is None else (signature.replace(_UNSET, "..."), returns)


def _rewrite(app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    text = textwrap.dedent("\n".join(lines)).strip()
    lines[:] = converted(text, _parameters(thing)).splitlines()


def _parameters(thing: Any) -> set[str]:
    try:
        return set(inspect.signature(thing).parameters)
    except (TypeError, ValueError):
        return set()


def converted(text: str, parameters: set[str]) -> str:
    """The same in reStructuredText; `parameters` are the names that a line may explain."""
    return "\n\n".join(_block(block, parameters) for block in _blocks(text)) + "\n"


def _blocks(text: str) -> list[str]:
    """Parted at empty lines; but a program is one block, with the empty lines in it."""
    blocks: list[str] = []
    for block in re.split(r"\n{2,}", text):
        if block.startswith("    ") and blocks and blocks[-1].startswith("    "):
            blocks[-1] += "\n\n" + block
        else:
            blocks.append(block)
    return blocks


def _block(block: str, parameters: set[str]) -> str:
    if block.startswith("    "):
        return f".. code-block:: {_language(block)}\n\n{block}"
    paragraphs: list[tuple[str, str]] = []  # each behind what marks an item of a list, or behind nothing
    for line in block.split("\n"):
        mark, above = paragraphs[-1] if paragraphs else ("", ".")
        if _explains(line, parameters):
            paragraphs.append(("* ", line))
        elif line.startswith(" ") or not above.endswith(".") or (paragraphs and not mark):
            paragraphs[-1] = mark, f"{above} {line.strip()}"
        else:
            paragraphs.append(("", line))
    return "\n\n".join(mark + _inline(text, parameters) for mark, text in paragraphs)


def _explains(line: str, parameters: set[str]) -> bool:
    names = re.match(rf"({_NAMES}): ", line)
    return names is not None and parameters.issuperset(names[1].split(", "))


def _language(block: str) -> str:
    try:
        ast.parse(textwrap.dedent(block))
    except SyntaxError:
        return "text"
    return "python"


def _inline(text: str, parameters: set[str]) -> str:
    def reference(name: str) -> str:
        return f":py:obj:`{'.' * name[0].isupper()}{name}`"  # a class wherever it is, all else in the class at hand

    def explained(found: re.Match[str]) -> str:
        if not _explains(found[0], parameters):
            return found[0]
        return ", ".join(f"**{name}**" for name in found[1].split(", ")) + ": "

    parts = _QUOTED.split(text)
    parts[1::2] = [reference(part) if re.fullmatch(_DOTTED, part) else f"``{part}``" for part in parts[1::2]]
    for place, part in enumerate(parts[::2]):
        plain = part.replace("*", r"\*").replace("|", r"\|")
        plain = _ERROR.sub(r":py:exc:`~rawstream.errors.\1`", plain)
        parts[2 * place] = re.sub(rf"(?:^|(?<=\. ))({_NAMES}): ", explained, plain)
    return "".join(parts)
