"""Says on what machine and with which versions a run was made."""

import importlib.metadata
import os
import platform
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

_DISTRIBUTIONS = (
    "rawstream", "h11", "uvloop", "uvicorn", "httptools", "starlette", "sse-starlette", "fastapi", "hypercorn",
    "granian", "aiohttp", "trustme",
)  # fmt: skip
_PROGRAMS = {"cc": ("cc", "--version"), "go": ("go", "version"), "nginx": ("nginx", "-v"), "node": ("node", "-v")}


def machine() -> dict[str, object]:
    """Processor, cores, kernel and load of this machine."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "architecture": platform.machine(),
        "load_average": list(os.getloadavg()),
    }


def versions() -> dict[str, str | None]:
    """Versions of Python and of each distribution that takes part; None for one that is not installed."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in _DISTRIBUTIONS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = _source_version(name)
    return found


def programs() -> dict[str, str | None]:
    """What each program that takes part says about its version; None for one that is not there."""
    return {name: _said(command) for name, command in _PROGRAMS.items()}


def _said(command: Sequence[str]) -> str | None:
    try:
        found = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return next(iter(found.stdout.splitlines()), None)


def missing_programs(names: Iterable[str]) -> list[str]:
    """Those of `names` that are not there: programs, or files if they are written as a path."""
    return [name for name in names if not (os.path.exists(name) if "/" in name else shutil.which(name))]


def missing(distributions: Iterable[str]) -> list[str]:
    """Those of `distributions` that are neither installed nor to be imported from here."""
    known = versions()
    return [name for name in distributions if known.get(name) is None]


def _source_version(name: str) -> str | None:
    """The version of a package that is imported from the source tree without being installed."""
    if name != "rawstream":
        return None
    try:
        import rawstream
    except ImportError:
        return None
    return str(getattr(rawstream, "__version__", "source"))


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.processor() or "unknown"
