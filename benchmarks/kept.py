"""Results that were kept as JSON: written, read again, and found to be what they should be before anybody uses them."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.report import FORMAT, Json, measured

_NUMBER = (int, float)


@dataclass(frozen=True, slots=True)
class Each:
    """An object (or, with `listed`, a list) whose values all have a shape."""

    shape: object
    listed: bool = False


_NUMBERS = Each(_NUMBER)
_CONTENDER = {"title": str, "peer": str, "variant": str, "state": str}
_FIGURES = {
    "samples": Each(_NUMBERS, listed=True),
    "noisy": Each(list, listed=True),
    "reader_limited": bool,
    "summary": Each(dict.fromkeys(("median", "low", "high", "quartile1", "quartile3"), _NUMBER)),
    "ratios": Each(dict.fromkeys(("median", "low", "high", "rounds"), _NUMBER)),
    "curves": Each(list),
    "timeline": list,
    "histogram": list,
}
"""What a contender has besides, if it was measured."""
_COLUMN = {"metric": str, "heading": str, "scale": _NUMBER, "digits": int, "ratio": bool}
_TARGET = {
    **dict.fromkeys(("text", "workload", "metric", "ours", "against"), str),
    **dict.fromkeys(("wanted", "ratio", "low", "high"), _NUMBER),
    **dict.fromkeys(("at_least", "met", "sure"), bool),
}
_RESULT = {
    "command": str,
    "machine": {"processor": str, "cores": int},
    "versions": dict,
    "reader": {"read_us": _NUMBER, "echo_us": _NUMBER},
    "settings": {"server_core": int, "load_core": int},
    "workloads": Each(
        {"title": str, "unit": str, "columns": Each(_COLUMN, listed=True), "contenders": Each(_CONTENDER)}
    ),
    "targets": Each(_TARGET, listed=True),
}
"""All that tables, page and `compare` rely on: a type, an object with these names, or `Each`."""


class Unreadable(Exception):
    """A file is not the JSON of a result; the message says in a line what is wrong with it."""


def write(result: Json, directory: Path) -> Path:
    """Write the JSON; gives its file."""
    path = directory / f"{result['command']}.json"
    path.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def read(path: Path) -> Json:
    """A result that was kept. Raises Unreadable."""
    try:
        found = json.loads(path.read_text("utf-8"))
    except OSError as exc:
        raise Unreadable(f"can't read {path}: {exc.strerror}") from exc
    except ValueError as exc:
        raise Unreadable(f"{path} is no JSON: {exc}") from exc
    if not isinstance(found, dict) or not {"format", "workloads", "settings"} <= found.keys():
        raise Unreadable(f"{path} is not a result of the benchmarks")
    if found["format"] != FORMAT:
        raise Unreadable(f"{path} has format {found['format']}, and this reads format {FORMAT}: measure again")
    if wrong := next(_wrong(found), None):
        raise Unreadable(f"{path} is not a result of the benchmarks: {wrong}")
    return found


def _wrong(result: Any) -> Iterator[str]:
    """What is not as it should be."""
    yield from _misfits(result, _RESULT, "")
    for name, part in result["workloads"].items():
        for contender, entry in part["contenders"].items():
            if measured(entry):
                yield from _misfits(entry, _FIGURES, f"workloads.{name}.contenders.{contender}.")


def _misfits(value: Any, shape: Any, where: str) -> Iterator[str]:
    """Where a value does not have its shape; the first is enough to know."""
    match shape:
        case Each(inner, listed):
            if not isinstance(value, list if listed else dict):
                yield f"{where.rstrip('.')} is no {'list' if listed else 'object'}"
                return
            for name, each in enumerate(value) if isinstance(value, list) else value.items():
                yield from _misfits(each, inner, f"{where}{name}.")
        case dict():
            if not isinstance(value, dict):
                yield f"{where.rstrip('.')} is no object"
                return
            for name, inner in shape.items():
                if name not in value:
                    yield f"there is no {where}{name}"
                else:
                    yield from _misfits(value[name], inner, f"{where}{name}.")
        case _:
            if not isinstance(value, shape):
                yield f"{where.rstrip('.')} is {str(value)[:40]!r}"
