"""Text for people, as the command line's tools write it: numbers, colours, no commands to the terminal. No I/O."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TextIO

# -- numbers -----------------------------------------------------------------------------------------------------------


def duration(value: float) -> str:
    """Seconds as a person reads them, in at most 8 characters up to 27 hours: `0.3 ms`, `501 ms`, `2.50 s`, `130 s`."""
    if value < 0.0995:
        return f"{value * 1000:.1f} ms"
    if value < 0.9995:
        return f"{value * 1000:.0f} ms"
    return f"{value:.2f} s" if value < 99.995 else f"{value:.0f} s"


def size(count: float) -> str:
    """Bytes as a person reads them, in at most 8 characters: `6 B`, `16 KiB`, `1.5 MiB`.

    In powers of 1024, as buffers are: who sees 16 KiB come at once knows that somebody has filled one."""
    number, unit = float(count), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if number < 1023.5:
            break
        number, unit = number / 1024, larger
    shown = f"{number:.1f}" if number < 99.95 and unit != "B" else f"{number:.0f}"
    return f"{shown.removesuffix('.0')} {unit}"


# -- text --------------------------------------------------------------------------------------------------------------

BOLD, DIM, RED, GREEN, YELLOW, CYAN = "1", "2", "31", "32", "33", "36"
"""What SGR (ECMA-48 section 8.3.117) calls them."""

# All that a terminal may take for a command (C0 but for tab and line feed, DEL, C1), and Unicode's bidirectional
# formatting characters, which turn the order of letters round, so that a text looks like another one.
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def _code(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


def on_one_line(text: str) -> str:
    """What somebody else wrote, for a message of one line: without line breaks, and nothing in it is a command."""
    return _CONTROLS.sub(_code, " ".join(text.split()))


@dataclass(frozen=True, slots=True)
class Style:
    """How text may look.

    colours: whether there may be any. safe: whether control characters are shown as `\\x1b`, for a terminal.
    blocks: whether characters beyond ASCII can be written, such as those that pictures are made of. width: columns.
    """

    colours: bool = False
    safe: bool = False
    blocks: bool = True
    width: int = 80

    @classmethod
    def of(cls, stream: TextIO, environment: Mapping[str, str] = os.environ) -> Style:
        """What suits this stream: colours for a terminal alone, and not where NO_COLOR (no-color.org) asks for none, or
        TERM says that it can show none."""
        terminal = stream.isatty()
        plain = environment.get("NO_COLOR") or environment.get("TERM") == "dumb"
        unicode = (getattr(stream, "encoding", None) or "").lower().replace("-", "") == "utf8"
        width = shutil.get_terminal_size((80, 24)).columns if terminal else 80
        return cls(terminal and not plain, terminal, unicode, width)

    def paint(self, text: str, *codes: str) -> str:
        """The text in these colours."""
        return f"\x1b[{';'.join(codes)}m{text}\x1b[0m" if self.colours and text else text

    def clean(self, text: str) -> str:
        """What a server sent, so that it cannot move the cursor, name the window or fill the clipboard. Tabs and line
        feeds stay."""
        return _CONTROLS.sub(self._escaped, text) if self.safe else text

    def _escaped(self, match: re.Match[str]) -> str:
        return self.paint(_code(match), RED)
