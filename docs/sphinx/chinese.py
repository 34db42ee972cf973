"""A search that finds Chinese as well as English, without a dictionary.

Chinese has no spaces between words. So each character is a word of the index, and each pair of neighbours is one too. A
query is cut into pairs, and a page is found that has all of them.
"""

from __future__ import annotations

import re
from itertools import pairwise

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.search.en import SearchEnglish

_WIDE = re.compile(r"[\u3000-\u9fff\uff00-\uffef]")
_WORD = re.compile(r"[\u4e00-\u9fff]+|[^\W\u4e00-\u9fff]+")


class ChineseAndEnglish(SearchEnglish):
    """Splits Chinese into characters and pairs of them, and leaves all else to English."""

    lang = "chinese and english"
    js_splitter_code = """
function splitQuery(query) {
  const words = query.match(/[\\u4e00-\\u9fff]+|(?:(?![\\u4e00-\\u9fff])[\\p{L}\\p{N}_])+/gu) || [];
  return words.flatMap((word) =>
    /^[\\u4e00-\\u9fff]{3,}$/.test(word) ? [...word].slice(1).map((last, n) => word[n] + last) : [word]);
}
"""

    def split(self, input: str) -> list[str]:
        """The words of a text, for the index."""
        words = []
        for word in _WORD.findall(input):
            if "\u4e00" <= word[0] <= "\u9fff":
                words += [*word, *map("".join, pairwise(word))]
            else:
                words.append(word)
        return words


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.add_search_language(ChineseAndEnglish)
    app.connect("doctree-read", _join_lines)
    app.connect("html-page-context", _tell_language)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _join_lines(app: Sphinx, tree: nodes.document) -> None:
    """Between two lines of Chinese HTML would show a space, which nobody has written."""
    for line_end in [text for text in tree.findall(nodes.Text) if text == "\n" and text.parent is not None]:
        place = line_end.parent.index(line_end)
        around = [sibling.astext() for sibling in line_end.parent.children[place - 1 : place + 2 : 2]]
        if len(around) == 2 and _WIDE.match(around[0][-1:]) and _WIDE.match(around[1]):
            line_end.parent.remove(line_end)


def _tell_language(app: Sphinx, page: str, template: str, context: dict[str, object], tree: object) -> None:
    """A Chinese page says so: a browser then takes a Chinese font, and a screen reader a Chinese voice."""
    if page.endswith(".zh-CN"):
        context["language"] = "zh-CN"
