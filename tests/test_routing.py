"""Method and path to a handler; 404, 405, HEAD and OPTIONS."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from rawstream import errors
from rawstream.fields import Headers
from rawstream.messages import Request, RequestHead, Response
from rawstream.routing import Router


class NoBody:
    """The body of a request that has none."""

    trailers = Headers()

    async def read(self) -> bytes:
        return b""


def request(method: str, path: str) -> Request:
    """A request whose path is as it was on the wire."""
    head = RequestHead(method, path, path, "", Headers(), "1.1")
    return Request(head, None, "1", asyncio.Event(), NoBody())


def named(name: str) -> Any:
    """A handler that gives its name and what the route's parts were; it need not be a coroutine to be picked."""
    return lambda request: (name, dict(request.params))


def picked(router: Router, method: str, path: str) -> tuple[str, dict[str, str]]:
    found: tuple[str, dict[str, str]] = router(request(method, path))
    return found


@pytest.fixture
def router() -> Router:
    router = Router()
    router.get("/")(named("root"))
    router.get("/jobs")(named("jobs"))
    router.post("/jobs")(named("add"))
    router.get("/jobs/{id}")(named("job"))
    router.put("/jobs/{id}")(named("change"))
    router.delete("/jobs/{id}")(named("stop"))
    router.post("/jobs/all")(named("all"))
    router.get("/jobs/{id}/log/{line}")(named("line"))
    router.get("/a b/é")(named("decoded"))
    return router


@pytest.mark.parametrize(
    ("method", "path", "name", "params"),
    [
        ("GET", "/", "root", {}),
        ("GET", "/jobs", "jobs", {}),
        ("POST", "/jobs", "add", {}),
        ("GET", "/jobs/7", "job", {"id": "7"}),
        ("PUT", "/jobs/7", "change", {"id": "7"}),
        ("DELETE", "/jobs/7", "stop", {"id": "7"}),
        ("GET", "/jobs/7/log/12", "line", {"id": "7", "line": "12"}),
        ("HEAD", "/jobs/7", "job", {"id": "7"}),
        # a path without parts in braces wins, for its own methods
        ("POST", "/jobs/all", "all", {}),
        ("GET", "/jobs/all", "job", {"id": "all"}),
        # percent-encoding: a slash inside a segment stays inside
        ("GET", "/jobs/a%20b", "job", {"id": "a b"}),
        ("GET", "/jobs/a%2Fb", "job", {"id": "a/b"}),
        ("GET", "/jobs/%E8%BF%99", "job", {"id": "这"}),
        ("GET", "/jobs/%7Bid%7D", "job", {"id": "{id}"}),
        ("GET", "/jobs/{id}", "job", {"id": "{id}"}),
        ("GET", "/jobs/100%", "job", {"id": "100%"}),
        ("GET", "/jobs/a+b", "job", {"id": "a+b"}),
        ("GET", "/a%20b/%C3%A9", "decoded", {}),
        ("GET", "/%6Aobs", "jobs", {}),
    ],
)
def test_a_request_goes_to_the_handler_of_its_method_and_path(
    router: Router, method: str, path: str, name: str, params: dict[str, str]
) -> None:
    assert picked(router, method, path) == (name, params)


@pytest.mark.parametrize(
    "path",
    ["/nothing", "/jobs/", "//jobs", "/jobs//log/1", "/jobs/7/", "/jobs/7/log", "/JOBS", "/jobs/7/log/1/2", "//"],
)
def test_an_unknown_path_is_not_found(router: Router, path: str) -> None:
    for method in ("GET", "POST", "OPTIONS", "HEAD"):
        with pytest.raises(errors.NotFound, match=f"^nothing is at {path}$"):
            picked(router, method, path)


def test_a_path_that_is_not_found_is_named_decoded(router: Router) -> None:
    with pytest.raises(errors.NotFound) as caught:
        picked(router, "GET", "/%E8%BF%99")
    assert caught.value.public == "nothing is at /这"


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("DELETE", "/jobs", "GET, HEAD, OPTIONS, POST"),
        ("POST", "/jobs/7", "DELETE, GET, HEAD, OPTIONS, PUT"),
        ("PATCH", "/jobs/all", "DELETE, GET, HEAD, OPTIONS, POST, PUT"),
        ("get", "/jobs", "GET, HEAD, OPTIONS, POST"),
        ("POST", "/", "GET, HEAD, OPTIONS"),
    ],
)
def test_another_method_is_not_allowed_and_told_which_are(router: Router, method: str, path: str, allow: str) -> None:
    with pytest.raises(errors.MethodNotAllowed) as caught:
        picked(router, method, path)
    assert caught.value.headers == (("Allow", allow),)


@pytest.mark.parametrize(
    ("path", "allow"),
    [
        ("/jobs", "GET, HEAD, OPTIONS, POST"),
        ("/jobs/7", "DELETE, GET, HEAD, OPTIONS, PUT"),
        ("/jobs/all", "DELETE, GET, HEAD, OPTIONS, POST, PUT"),
        ("*", "DELETE, GET, HEAD, OPTIONS, POST, PUT"),
    ],
)
async def test_options_tells_what_is_allowed(router: Router, path: str, allow: str) -> None:
    assert await router(request("OPTIONS", path)) == Response(204, [("Allow", allow)])


async def test_options_of_an_empty_router() -> None:
    assert await Router()(request("OPTIONS", "*")) == Response(204, [("Allow", "OPTIONS")])


def test_without_get_there_is_no_head(router: Router) -> None:
    router.post("/only")(named("only"))
    with pytest.raises(errors.MethodNotAllowed, match=r"^this path takes OPTIONS, POST$"):
        picked(router, "HEAD", "/only")


def test_head_and_options_may_have_handlers_of_their_own(router: Router) -> None:
    router.route("HEAD", "/jobs")(named("head"))
    router.route("OPTIONS", "/jobs")(named("options"))
    assert picked(router, "HEAD", "/jobs") == ("head", {})
    assert picked(router, "OPTIONS", "/jobs") == ("options", {})
    assert picked(router, "GET", "/jobs") == ("jobs", {})


def test_any_method_can_have_a_handler(router: Router) -> None:
    router.route("PURGE", "/jobs")(named("purge"))
    assert picked(router, "PURGE", "/jobs") == ("purge", {})


def test_of_several_paths_with_parts_in_braces_the_first_wins() -> None:
    router = Router()
    router.get("/{kind}/new")(named("kind"))
    router.get("/jobs/{id}")(named("id"))
    assert picked(router, "GET", "/jobs/new") == ("kind", {"kind": "jobs"})
    assert picked(router, "GET", "/jobs/7") == ("id", {"id": "7"})


def test_a_later_path_answers_the_methods_that_an_earlier_one_has_not() -> None:
    router = Router()
    router.get("/{kind}/new")(named("get"))
    router.post("/jobs/{id}")(named("post"))
    assert picked(router, "POST", "/jobs/new") == ("post", {"id": "new"})
    with pytest.raises(errors.MethodNotAllowed, match=r"^this path takes GET, HEAD, OPTIONS, POST$"):
        picked(router, "PUT", "/jobs/new")


def test_a_request_without_parts_in_braces_is_handed_on_as_it_is(router: Router) -> None:
    asked = request("GET", "/same")
    router.get("/same")(lambda request: request)
    assert router(asked) is asked


def test_params_leave_the_rest_of_the_request_alone(router: Router) -> None:
    asked = request("GET", "/as/7")
    router.get("/as/{id}")(lambda request: request)
    found = router(asked)
    assert (found.params, found.head, found.id, found.closing) == ({"id": "7"}, asked.head, asked.id, asked.closing)
    assert asked.params == {}


def test_a_router_is_a_handler_of_a_router(router: Router) -> None:
    outer = Router()
    outer.get("/jobs/{any}")(router)
    assert picked(outer, "GET", "/jobs/7") == ("job", {"id": "7"})


async def test_coroutines_and_async_generators_come_back_as_they_are() -> None:
    """A router only picks: nothing has run yet."""
    router = Router()
    ran: list[str] = []

    @router.get("/answer")
    async def answer(request: Request) -> Response:
        ran.append("answer")
        return Response()

    @router.get("/items")
    async def items(request: Request) -> AsyncIterator[int]:
        ran.append("items")
        yield 1

    coroutine, generator = router(request("GET", "/answer")), router(request("GET", "/items"))
    assert ran == []
    assert [item async for item in generator] == [1]
    assert await coroutine == Response()
    assert ran == ["items", "answer"]


def test_the_decorator_gives_the_handler_back(router: Router) -> None:
    handler = named("same")
    for decorate in (router.get, router.post, router.put, router.delete):
        assert decorate("/back")(handler) is handler


def test_a_handler_may_have_several_routes(router: Router) -> None:
    handler = named("both")
    router.get("/one")(router.post("/two")(handler))
    assert picked(router, "GET", "/one") == picked(router, "POST", "/two") == ("both", {})


# -- paths that cannot be ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("", "begins with /: ''"),
        ("jobs", "begins with /: 'jobs'"),
        ("*", "begins with /"),
        ("/jobs/{}", "{} in '/jobs/{}' is not a name"),
        ("/jobs/{1st}", "{1st} in '/jobs/{1st}' is not a name"),
        ("/jobs/{a b}", "is not a name"),
        ("/jobs/{a}{b}", "is not a name"),
        ("/jobs/{id:int}", "is not a name"),
        ("/{id}/x/{id}", "'/{id}/x/{id}' has a name twice"),
        ("/jobs/x{id}", "a whole segment, as in /jobs/{id}/log: '/jobs/x{id}'"),
        ("/jobs/{id}.json", "a whole segment"),
        ("/jobs/{id", "a whole segment"),
        ("/jobs/id}", "a whole segment"),
        ("/jobs/{", "a whole segment"),
        ("/jobs/{id/x}", "a whole segment"),
    ],
)
def test_a_path_that_cannot_be_is_refused_when_it_is_added(path: str, words: str) -> None:
    with pytest.raises(errors.LocalError) as caught:
        Router().get(path)
    assert words in str(caught.value)


def test_a_path_that_is_taken_is_refused(router: Router) -> None:
    with pytest.raises(errors.LocalError, match=r"^GET /jobs has a handler already: "):
        router.get("/jobs")(named("again"))
    assert picked(router, "GET", "/jobs") == ("jobs", {})
