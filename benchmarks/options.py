"""Types of options that several commands have. Each raises ArgumentTypeError with what would be right."""

from argparse import ArgumentTypeError
from collections.abc import Collection


def positive(text: str) -> int:
    """A whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(f"{text!r} is not a number of at least 1")
    return int(text)


def core(text: str) -> int:
    """The number of a core."""
    if not text.isdecimal():
        raise ArgumentTypeError(f"{text!r} is not the number of a core")
    return int(text)


def names(text: str) -> list[str]:
    """Names between commas, each once; where there is none, the empty one, which nothing has."""
    return list(dict.fromkeys(name for name in text.split(",") if name)) or [""]


def known_names(text: str, known: Collection[str], kind: str) -> list[str]:
    """The same, all of which have to be among those that are `known`."""
    found = names(text)
    for name in found:
        if name not in known:
            raise ArgumentTypeError(f"no {kind} {name!r}; there are: {', '.join(known)}")
    return found
