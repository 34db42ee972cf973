"""`python -m rawstream probe URL`: does this stream really stream, and if not, who holds it back?

The URL is asked for in several ways (`ways`), what comes is recorded (`measure`, `arrivals`) and judged (`verdict`
where our own `handler` is behind and each chunk says when it was sent, `inference` elsewhere), and whoever holds it
back is named from the evidence (`culprits`). `hunt` is the course of it; `report`, `picture` and `svg` show it.
"""

from __future__ import annotations

from .command import add_options, main
from .endpoint import handler

__all__ = ["add_options", "handler", "main"]
