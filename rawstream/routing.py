"""Method and path to a handler. A `Router` is itself a handler: it can be served, and it only picks, never waits."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar
from urllib.parse import unquote

from .errors import LocalError, MethodNotAllowed, NotFound
from .messages import Handler, Request, Response

H = TypeVar("H", bound=Handler)


class Router:
    """Sends each request to the handler of its method and path.

        @router.get("/jobs/{id}")
        async def job(request):
            yield request.params["id"]

    A part of a path in braces matches one segment; what it matched, percent-decoded, is in `request.params`. A route
    without such parts wins over one with them, then the one that was added first. HEAD is answered by GET's handler,
    unless it has one of its own; OPTIONS by 204 with Allow, likewise. An unknown path raises NotFound (404), a known
    one with another method MethodNotAllowed (405).
    """

    def __init__(self) -> None:
        self._routes: dict[tuple[str, ...], _Route] = {}

    def route(self, method: str, path: str) -> Callable[[H], H]:
        """A decorator that adds a handler for any method: "PATCH", say, in capitals, as requests have it.

        Raises LocalError for a path that cannot be, or is taken.
        """
        pattern = _pattern(path)

        def add(handler: H) -> H:
            handlers = self._routes.setdefault(pattern, _Route(pattern)).handlers
            if method in handlers:
                raise LocalError(f"{method} {path} has a handler already: {handlers[method]!r}")
            handlers[method] = handler
            return handler

        return add

    def get(self, path: str) -> Callable[[H], H]:
        """`route("GET", path)`; it answers HEAD too."""
        return self.route("GET", path)

    def post(self, path: str) -> Callable[[H], H]:
        """`route("POST", path)`."""
        return self.route("POST", path)

    def put(self, path: str) -> Callable[[H], H]:
        """`route("PUT", path)`."""
        return self.route("PUT", path)

    def delete(self, path: str) -> Callable[[H], H]:
        """`route("DELETE", path)`."""
        return self.route("DELETE", path)

    def __call__(self, request: Request) -> Any:
        """What the handler gives: an awaitable or an async generator. Raises NotFound or MethodNotAllowed."""
        method, path = request.head.method, request.head.path
        if path == "*":
            return _options(_allow({name for route in self._routes.values() for name in route.handlers}))
        segments = tuple(map(unquote, path.split("/")) if "%" in path else path.split("/"))
        allowed: dict[str, Handler] = {}
        for route in self._candidates(segments):
            handler = route.handlers.get(method) or (route.handlers.get("GET") if method == "HEAD" else None)
            if handler is not None:
                params = {name: segments[place] for place, name in route.names}
                return handler(dataclasses.replace(request, params=params) if params else request)
            allowed = {**route.handlers, **allowed}
        if not allowed:
            raise NotFound(f"nothing is at {request.path}")
        if method == "OPTIONS":
            return _options(_allow(allowed))
        raise MethodNotAllowed(_allow(allowed))

    def _candidates(self, segments: tuple[str, ...]) -> Iterator[_Route]:
        """The routes that match: the one without parts in braces first."""
        if (exact := self._routes.get(segments)) is not None:
            yield exact
        for pattern, route in self._routes.items():
            if route is not exact and len(pattern) == len(segments) and all(map(_matches, pattern, segments)):
                yield route


class _Route:
    """What is at the paths that match a pattern."""

    def __init__(self, pattern: tuple[str, ...]) -> None:
        self.names = [(place, part[1:-1]) for place, part in enumerate(pattern) if _is_name(part)]
        self.handlers: dict[str, Handler] = {}  # by method


def _pattern(path: str) -> tuple[str, ...]:
    if not path.startswith("/"):
        raise LocalError(f"a route's path begins with /: {path!r}")
    pattern = tuple(path.split("/"))
    names = [part[1:-1] for part in pattern if _is_name(part)]
    for name in names:
        if not name.isidentifier():
            raise LocalError(f"{{{name}}} in {path!r} is not a name")
    if len(set(names)) < len(names):
        raise LocalError(f"{path!r} has a name twice")
    if any(("{" in part or "}" in part) and not _is_name(part) for part in pattern):
        raise LocalError(f"a part in braces is a whole segment, as in /jobs/{{id}}/log: {path!r}")
    return pattern


def _matches(part: str, segment: str) -> bool:
    return part == segment or (segment != "" and _is_name(part))


def _is_name(part: str) -> bool:
    return part.startswith("{") and part.endswith("}")


def _allow(methods: Iterable[str]) -> list[str]:
    return sorted({*methods, "OPTIONS"} | ({"HEAD"} if "GET" in methods else set()))


async def _options(allow: list[str]) -> Response:
    return Response(204, [("Allow", ", ".join(allow))])
