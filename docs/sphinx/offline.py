"""The site loads nothing from anywhere else: no font, no script, no picture. Whoever reads it tells nobody."""

from __future__ import annotations

import re
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.util import logging

_LOADED = [
    re.compile(r"<(?:script|img|iframe|source|link)\b[^>]*?\b(?:src|href|srcset)=[\"']?((?:https?:)?//[^\"'\s>]+)"),
    re.compile(r"(?:url\(|@import )[\"']?((?:https?:)?//[^\"')]+)"),
]
log = logging.getLogger(__name__)


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("build-finished", _check)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _check(app: Sphinx, failure: Exception | None) -> None:
    if failure is None:
        for path in sorted(Path(app.outdir).rglob("*")):
            if path.suffix in {".html", ".css"} and "_sources" not in path.parts:
                text = path.read_text(encoding="utf-8")
                for place in {found for pattern in _LOADED for found in pattern.findall(_without_text(text))}:
                    log.warning("%s loads %s", path.relative_to(app.outdir), place)


def _without_text(page: str) -> str:
    """A page without what its listings show."""
    return re.sub(r"<pre>.*?</pre>", "", page, flags=re.DOTALL)
