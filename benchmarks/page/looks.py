"""The colours: a class for each family of servers, and the style sheet that gives it a colour in light and in dark.

Colour is never the only sign: rawstream is drawn thicker, a floor is dashed, and every line and row has its name.
"""

from pathlib import Path

# What belongs together looks alike: the family is the first word of a peer's name. (light, dark)
_FAMILIES = {
    "rawstream": ("#d1232a", "#ff6b62"),
    "floor": ("#6b7280", "#9aa3af"),
    "uvicorn": ("#1b66b3", "#66aef2"),
    "sse": ("#1b66b3", "#66aef2"),
    "fastapi": ("#1b66b3", "#66aef2"),
    "hypercorn": ("#9a5b13", "#dca05a"),
    "granian": ("#b0307f", "#f080bf"),
    "aiohttp": ("#1d7f4b", "#58c78d"),
    "node": ("#6f7400", "#c3c54b"),
    "go": ("#007f93", "#4cc6d8"),
    "nchan": ("#6a4c93", "#b597e0"),
    "other": ("#4b5563", "#a8b0bb"),
}


def look(peer: str) -> str:
    """The classes of what is drawn for a peer."""
    family = peer.partition("-")[0]
    found = f"c-{family if family in _FAMILIES else 'other'}"
    if is_ours(peer):
        found += " ours"
    return found + " dashed" if peer.endswith("-uvloop") or is_floor(peer) else found


def is_ours(peer: str) -> bool:
    """Whether a peer is rawstream, in whatever way it is run."""
    return peer.partition("-")[0] == "rawstream"


def is_floor(peer: str) -> bool:
    """Whether a peer is no server but what the kernel alone costs."""
    return peer.partition("-")[0] == "floor"


def _variables(dark: bool) -> str:
    return "".join(f"--{family}:{pair[dark]};" for family, pair in (_PLAIN | _FAMILIES).items())


def _of_drawings() -> str:
    return "".join(f".c-{family}{{--c:var(--{family})}}" for family in _FAMILIES) + _read("drawing.css")


def _read(name: str) -> str:
    return (Path(__file__).parent / name).read_text("utf-8")


_PLAIN = {
    "ground": ("#ffffff", "#12161c"),
    "text": ("#1a1f27", "#e8ebef"),
    "soft": ("#59616d", "#a3acb8"),
    "rule": ("#dfe3e8", "#323a45"),
    "grid": ("#e8ebef", "#262d37"),
    "band": ("#f5f7f9", "#1a2028"),
    "good": ("#12703d", "#5fd396"),
    "bad": ("#b42318", "#ff8a80"),
}


def _schemes(root: str) -> str:
    light, dark = _variables(False), _variables(True)
    # Paper is white, whatever the screen was.
    return f"{root}{{{light}}}@media (prefers-color-scheme:dark){{{root}{{{dark}}}}}@media print{{{root}{{{light}}}}}"


def style_of_page() -> str:
    """The style sheet of the page."""
    return _schemes(":root") + _of_drawings() + _read("page.css")


def style_of_file() -> str:
    """The style sheet inside a drawing that is a file of its own; such a file follows the reader's scheme, too."""
    return _schemes("svg") + _of_drawings()
