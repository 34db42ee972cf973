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
        self._routes: dict[tuple[str, ...], dict[str, Handler]] = {}

    def route(self, method: str, path: str) -> Callable[[H], H]:
        """A decorator that adds a handler for any method: "PATCH", say, in capitals, as requests have it.

        Raises LocalError for a path that cannot be, or is taken.
        """
        pattern = _pattern(path)

        def add(handler: H) -> H:
            methods = self._routes.setdefault(pattern, {})
            if method in methods:
                raise LocalError(f"{method} {path} has a handler already: {methods[method]!r}")
            methods[method] = handler
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
        if request.head.path == "*":
            return _options(_allow({name for methods in self._routes.values() for name in methods}))
        path = tuple(request.head.path.split("/"))
        allowed: dict[str, Handler] = {}
        for pattern in self._candidates(path):
            methods = self._routes[pattern]
            handler = methods.get(request.method) or (methods.get("GET") if request.method == "HEAD" else None)
            if handler is not None:
                params = _params(pattern, path)
                return handler(dataclasses.replace(request, params=params) if params else request)
            allowed = {**methods, **allowed}
        if not allowed:
            raise NotFound(f"nothing is at {request.path}")
        if request.method == "OPTIONS":
            return _options(_allow(allowed))
        raise MethodNotAllowed(_allow(allowed))

    def _candidates(self, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        """The patterns that match: the one without parts in braces first."""
        exact = tuple(map(unquote, path))
        if exact in self._routes:
            yield exact
        for pattern in self._routes:
            if pattern != exact and len(pattern) == len(exact) and all(map(_matches, pattern, exact)):
                yield pattern


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


def _params(pattern: tuple[str, ...], path: tuple[str, ...]) -> dict[str, str]:
    return {part[1:-1]: unquote(value) for part, value in zip(pattern, path, strict=True) if _is_name(part)}


def _allow(methods: Iterable[str]) -> list[str]:
    return sorted({*methods, "OPTIONS"} | ({"HEAD"} if "GET" in methods else set()))


async def _options(allow: list[str]) -> Response:
    return Response(204, [("Allow", ", ".join(allow))])
