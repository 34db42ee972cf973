"""What a server allows and how long it waits: two small frozen values, checked when they are made."""

from __future__ import annotations

import ast
import inspect
from dataclasses import dataclass, fields
from itertools import pairwise

_LONGEST = 1_000_000  # seconds; Linux takes TCP_USER_TIMEOUT as milliseconds in 31 bits, which is 24 days


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much a peer may send, how much is held for it, and how much is served at once. Sizes are in bytes.

    Raises ValueError for a value that is not a positive whole number (or None, where None is the default: no limit).
    """

    connections: int = 20_000
    """Connections open at once, as far as the process may open files; beyond it the answer is 503. An idle stream
    takes about 10 KB."""

    connections_per_client: int | None = None
    """Connections from one address; beyond it the answer is 503. None, since behind a proxy or an office's gateway
    everybody has the same address."""

    streams: int | None = None
    """Streams open at once; beyond it the answer is 503, and the generator does not start."""

    requests: int = 100_000
    """Requests on one connection; the last is answered with `Connection: close`."""

    target: int = 8 * 1024
    """A request's target; beyond it the answer is 414. RFC 9112 section 3 asks for 8000 or more."""

    head: int = 16 * 1024
    """A request's line and header fields; beyond it the answer is 431. 16 KiB is also h11's and Node's choice."""

    headers: int = 100
    """Header fields of a request; beyond it the answer is 431. Apache and Django allow 100 as well."""

    body: int = 10 * 1024 * 1024
    """A request's body; beyond it reading it raises BodyTooLarge, which is answered 413."""

    held: int = 16 * 1024
    """Bytes received and not yet asked for, of a body or of a next request."""

    high_water: int = 16 * 1024
    """Bytes waiting to be sent above which the producer pauses; it goes on below a quarter of it."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is None and field.default is None:
                continue
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"Limits.{field.name} is a positive whole number, not {value!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """How long a server waits, in seconds, each to within a quarter of a second.

    Raises ValueError for a value that is not a positive number of at most 1,000,000, which is eleven days
    (`grace` and `linger` may be 0, and None is allowed where it is the default: no deadline).
    """

    head: float = 10.0
    """For a request's whole head, from its first byte (on a new connection: from the connection)."""

    body: float = 30.0
    """For the next bytes of a request's body, while the handler waits for them."""

    keep_alive: float = 75.0
    """For the next request on a connection. Longer than the 60 s after which common proxies give up theirs,
    so that it is never we who close a connection that a proxy is about to use. nginx has 75 s too."""

    request: float | None = None
    """For a whole request, from its head until all of its answer is handed over. None, since a stream may have no
    end. Beyond it the answer is 503; a stream that has begun is told, and cut."""

    first_item: float | None = None
    """For a stream's first item. None, since a feed of news may be silent for long. Beyond it as with `request`."""

    write_stall: float = 30.0
    """A write buffer that has not shrunk for so long: the reader is cut."""

    clean_up: float = 10.0
    """For a handler to end once it was told that its reader is gone, or that it took too long. One that does not is
    logged, its connection is cut, and it is cancelled again."""

    grace: float = 5.0
    """For open responses to end by themselves when the server closes."""

    linger: float = 2.0
    """For reading and dropping what a peer still sends when we refuse it, so that it gets to read the refusal
    (closing with bytes unread makes the kernel reset the connection). nginx waits 5 s, Go half a second."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is None and field.default is None:
                continue
            least = "0 or more" if field.name in ("grace", "linger") else "above 0"
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not (0 < value <= _LONGEST or (value == 0 and least == "0 or more")):
                raise ValueError(
                    f"Timeouts.{field.name} is a number of seconds, {least} and at most {_LONGEST}, not {value!r}"
                )


def explained(kind: type[Limits] | type[Timeouts]) -> dict[str, str]:
    """What stands below each setting here, on one line, for --help; nothing where there is no source to read."""
    try:
        [definition] = ast.parse(inspect.getsource(kind)).body
    except OSError:
        return {}
    assert isinstance(definition, ast.ClassDef), "a kind of settings is a class"
    texts = {}
    for setting, below in pairwise(definition.body):
        if isinstance(setting, ast.AnnAssign) and isinstance(below, ast.Expr):
            texts[ast.unparse(setting.target)] = " ".join(ast.literal_eval(below.value).split())
    return texts
