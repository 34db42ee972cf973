"""A page for each file that is linked and is no page itself: programs, modules, configuration, as they are.

`[pump.py](../rawstream/pump.py)` leads to the file in the repository, and on the site to
`../rawstream/pump.py.html`. What the reference describes has a link to its line there.
"""

from __future__ import annotations

import inspect
import posixpath
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from docutils import nodes
from pygments import highlight
from pygments.formatters.html import HtmlFormatter
from pygments.lexers import TextLexer, get_lexer_for_filename
from pygments.util import ClassNotFound
from sphinx import addnodes
from sphinx.application import Sphinx

import rawstream

ROOT = Path(__file__).resolve().parent.parent.parent
PICTURES = {".png", ".svg"}

linked: set[str] = set()
"""The files, as paths from the top of the repository."""


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("doctree-read", _lead_to_pages, priority=100)  # before Sphinx makes downloads of them
    app.connect("html-collect-pages", _pages)
    app.config.linkcode_resolve = _line_of
    return {"parallel_read_safe": False, "parallel_write_safe": True}


def _lead_to_pages(app: Sphinx, tree: nodes.document) -> None:
    for node in list(tree.findall(addnodes.download_reference)):
        target = node["reftarget"]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(app.env.docname), target))
        if Path(path).suffix not in PICTURES:
            linked.add(path)
            node.replace_self(nodes.reference("", "", *node.children, refuri=f"{target}.html", internal=True))


def _line_of(domain: str, info: dict[str, str]) -> str | None:
    """Where the source of an object of the reference is shown; all pages of the reference are in docs/reference/."""
    found: Any = rawstream
    try:
        for name in f"{info['module']}.{info['fullname']}".split(".")[1:]:
            found = getattr(found, name)
        found = inspect.unwrap(found.fget if isinstance(found, property) else found)
        path = Path(inspect.getsourcefile(found) or "").resolve().relative_to(ROOT).as_posix()
        line = inspect.getsourcelines(found)[1]
    except (AttributeError, TypeError, ValueError, OSError):
        return None  # a field of a dataclass, say, or a name that is given to two things
    linked.add(path)
    return f"../../{path}.html#L-{line}"


def _pages(app: Sphinx) -> Iterator[tuple[str, dict[str, object], str]]:
    formatter = HtmlFormatter(linenos="inline", lineanchors="L", anchorlinenos=True, wrapcode=True)
    for path in sorted(linked):
        text = (ROOT / path).read_text(encoding="utf-8")
        try:
            lexer = get_lexer_for_filename(path, text)
        except ClassNotFound:
            lexer = TextLexer()
        body = f'<div class="source"><h1>{path}</h1>{highlight(text, lexer, formatter)}</div>'
        yield path, {"title": path, "body": body, "parents": [], "toc": "", "display_toc": False}, "page.html"
