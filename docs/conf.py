"""How the site is built: `make docs`.

The site's source is the whole repository, not docs/ alone: so a link from a page to the README, to an example or to a
module of the source is the same link whether it is read in the repository or on the site.
"""

from __future__ import annotations

import sys
from pathlib import Path

from pygments.lexers.special import TextLexer
from sphinx.application import Sphinx

import rawstream

sys.path.insert(0, str(Path(__file__).parent / "sphinx"))

project = "rawstream"
smartquotes = False  # what is quoted is code, often
release = rawstream.__version__
language = "en"

# Ours, in docs/sphinx/: each says at its top what it is for.
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.linkcode", "chinese", "docstrings", "offline", "sources"]

root_doc = "docs/index"
include_patterns = ["*.md", "docs/**.md", "examples/**.md"]
exclude_patterns = [".*", "**/.*", "site", "tests", "benchmarks", "rawstream"]
source_suffix = {".md": "markdown"}

myst_heading_anchors = 3  # a link to page.md#a-heading is checked, as GitHub makes these anchors

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
python_display_short_literal_types = True
python_maximum_signature_line_length = 90
toc_object_entries_show_parents = "hide"

html_theme = "furo"
html_title = "rawstream"
html_additional_pages = {"index": "redirect.html"}
templates_path = ["sphinx/templates"]
html_static_path = ["sphinx/style.css"]
html_css_files = ["style.css"]
html_copy_source = False
html_show_copyright = False
html_show_sphinx = False
html_search_language = "chinese and english"
html_last_updated_fmt = None
pygments_style = "friendly"
pygments_dark_style = "github-dark"
html_theme_options = {"navigation_with_keys": False}


def setup(app: Sphinx) -> None:
    """Languages that GitHub highlights, and Pygments does not know."""
    for name in ("caddyfile", "haproxy"):
        app.add_lexer(name, TextLexer)
