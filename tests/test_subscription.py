"""What a handler returns to let its client read a channel: where it begins, in which form, and when it does not."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from subscribers import NDJSON, SSE, Subscriber, Told, ready
from support import Served, Serving, chunk, get, request, settle, until
from unsteady import Staged, away

from rawstream import Hub, Request
from rawstream.channels import Channel
from rawstream.channels.log import Id
from rawstream.errors import BadEventId, LocalError

pytestmark = pytest.mark.usefixtures("orderly")


HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
    b"Cache-Control: no-store, no-transform\r\nX-Accel-Buffering: no\r\nVary: Accept\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)


@pytest.fixture
async def ids(news: Channel) -> list[str]:
    """The ids of what was published: 0, 1, 2, 3 and 4."""
    return [await news.publish(n) for n in range(5)]


@pytest.fixture
async def served(serving: Serving, news: Channel) -> Served:
    """A server of which each client gets `news.subscribe()`."""

    async def handler(request: Request) -> object:
        return news.subscribe()

    return await serving(handler)


async def with_replay(serving: Serving, channel: Channel, **settings: object) -> Served:
    async def handler(request: Request) -> object:
        return channel.subscribe(**settings)  # type: ignore[arg-type]

    return await serving(handler)


# -- in which form ---------------------------------------------------------------------------------------------------


async def test_a_subscription_is_an_event_stream_and_its_head_leaves_at_once(served: Served, news: Channel) -> None:
    peer = await served.ask(get())
    await peer.expect_head(HEAD)
    await peer.expect(chunk(b":\n\n"))
    await ready(news)
    id = await news.publish("two\nlines", event="tick")
    await peer.expect(chunk(f"event: tick\ndata: two\ndata: lines\nid: {id}\n\n".encode()))


@pytest.mark.parametrize("accept", [NDJSON, "application/jsonl", "text/html, application/x-ndjson;q=0.1"])
async def test_a_subscription_is_json_lines_for_who_asks_for_them(served: Served, news: Channel, accept: str) -> None:
    reader = await Subscriber.of(served, "/", f"Accept: {accept}")
    assert reader.status == 200
    assert reader.headers["content-type"] in accept
    assert reader.headers["vary"] == "Accept"
    await ready(news)
    id = await news.publish({"a": 1})
    assert await reader.take(1) == [Told(id, "message", {"a": 1})]
    assert reader.body == f'{{"id":"{id}","event":"message","data":{{"a":1}}}}\n'.encode()


@pytest.mark.parametrize("accept", ["*/*", "text/*", "text/event-stream, application/x-ndjson", "text/html, */*;q=0.1"])
async def test_who_takes_anything_gets_an_event_stream(served: Served, accept: str) -> None:
    assert (await Subscriber.of(served, "/", f"Accept: {accept}")).headers["content-type"] == SSE


@pytest.mark.parametrize("accept", ["application/json", "text/plain", "text/event-stream;q=0"])
async def test_other_forms_are_refused(served: Served, news: Channel, accept: str) -> None:
    assert (await Subscriber.of(served, "/", f"Accept: {accept}")).status == 406
    assert news.subscribers == 0


# -- where it begins -------------------------------------------------------------------------------------------------


async def test_who_says_nothing_gets_what_comes(served: Served, news: Channel, ids: list[str]) -> None:
    reader = await Subscriber.of(served)
    await ready(news)
    ids.append(await news.publish(5))
    assert await reader.take(1) == [Told(ids[5], "message", 5)]
    assert "stream-gap" not in reader.headers


async def test_who_has_seen_an_event_says_so_in_a_header(served: Served, ids: list[str]) -> None:
    reader = await Subscriber.of(served, "/", f"Last-Event-ID: {ids[2]}")
    assert await reader.data(2) == [3, 4]
    assert "stream-gap" not in reader.headers


async def test_who_can_set_no_header_says_so_in_the_query(served: Served, ids: list[str]) -> None:
    assert await (await Subscriber.of(served, f"/?last_event_id={ids[2]}")).data(2) == [3, 4]


async def test_the_header_wins(served: Served, ids: list[str]) -> None:
    """EventSource comes back to the same URL, and says in the header what it has seen since."""
    reader = await Subscriber.of(served, f"/?last_event_id={ids[0]}", f"Last-Event-ID: {ids[3]}")
    assert await reader.data(1) == [4]


@pytest.mark.parametrize("where", ["query", "header"])
async def test_the_earliest_is_all_that_is_held(served: Served, ids: list[str], where: str) -> None:
    if where == "query":
        reader = await Subscriber.of(served, "/?last_event_id=earliest")
    else:
        reader = await Subscriber.of(served, "/", "Last-Event-ID: earliest")
    assert await reader.data(5) == [0, 1, 2, 3, 4]


async def test_an_empty_query_says_nothing(served: Served, news: Channel, ids: list[str]) -> None:
    reader = await Subscriber.of(served, "/?last_event_id=")
    await ready(news)
    await news.publish(5)
    assert await reader.data(1) == [5]


@pytest.mark.parametrize("id", ["x", "5", "5-7-9", "-", "5-%20", "5-7777777777777777"])
async def test_a_malformed_id_is_a_bad_request(served: Served, news: Channel, id: str) -> None:
    assert (await Subscriber.of(served, f"/?last_event_id={id}")).status == 400
    assert (await Subscriber.of(served, "/", f"Last-Event-ID: {id}")).status == 400
    assert news.subscribers == 0


@pytest.mark.parametrize(
    ("replay", "first"), [("earliest", 0), (1, 4), (3, 2), (5, 0), (99, 0)], ids=["earliest", "1", "3", "5", "99"]
)
async def test_who_has_seen_nothing_is_sent_some_of_the_log_first(
    serving: Serving, news: Channel, ids: list[str], replay: object, first: int
) -> None:
    served = await with_replay(serving, news, replay=replay)
    reader = await Subscriber.of(served)
    await news.publish(5)
    assert await reader.data(6 - first) == [*range(first, 6)]
    reader = await Subscriber.of(served, "/", f"Last-Event-ID: {ids[3]}")
    assert await reader.data(2) == [4, 5], "but who has seen something goes on after it"


@pytest.mark.parametrize("replay", [None, 0])
async def test_no_replay_is_none(serving: Serving, news: Channel, ids: list[str], replay: object) -> None:
    reader = await Subscriber.of(await with_replay(serving, news, replay=replay))
    await ready(news)
    await news.publish(5)
    assert await reader.data(1) == [5]


async def test_a_handler_may_say_where_a_client_begins_that_has_seen_nothing(
    serving: Serving, news: Channel, ids: list[str]
) -> None:
    served = await with_replay(serving, news, after=ids[1])
    assert await (await Subscriber.of(served)).data(3) == [2, 3, 4]
    reader = await Subscriber.of(served, "/", f"Last-Event-ID: {ids[3]}")
    assert await reader.data(1) == [4], "who comes back is not told again"


async def test_one_subscription_serves_any_number_of_clients(serving: Serving, news: Channel, ids: list[str]) -> None:
    subscription = news.subscribe(replay=2)

    async def handler(request: Request) -> object:
        return subscription

    served = await serving(handler)
    for _ in range(3):
        assert await (await Subscriber.of(served)).data(2) == [3, 4]


async def test_a_subscription_is_a_handler_itself(serving: Serving, news: Channel, ids: list[str]) -> None:
    assert await (await Subscriber.of(await serving(news.subscribe("earliest")))).data(5) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("replay", [-1, True, 1.5, "latest", "5"])
def test_what_is_no_replay_is_refused_at_once(replay: object) -> None:
    with pytest.raises(LocalError):
        Hub().channel("news").subscribe(replay=replay)  # type: ignore[arg-type]


def test_what_is_no_id_is_refused_at_once() -> None:
    with pytest.raises(BadEventId):
        Hub().channel("news").subscribe("x")
    with pytest.raises(LocalError):
        Hub().channel("news").subscribe(7)


# -- what is missing -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("accept", [SSE, NDJSON])
async def test_what_is_missing_is_told_in_the_head_and_in_the_stream(
    served: Served, store: Staged, news: Channel, ids: list[str], accept: str
) -> None:
    ids += [await news.publish(n) for n in range(5, 9)]
    await store.trim("news", Id.parse(ids[6]))
    reader = await Subscriber.of(served, "/", f"Accept: {accept}", f"Last-Event-ID: {ids[1]}")
    assert reader.headers["stream-gap"] == "4"
    gap, *rest = await reader.take(4)
    assert (gap.event, gap.data) == ("stream-gap", {"missing": 4, "after": ids[1]})
    assert [told.data for told in rest] == [6, 7, 8]
    reader = await Subscriber.of(served, "/", f"Accept: {accept}", f"Last-Event-ID: {gap.id}")
    assert "stream-gap" not in reader.headers
    assert await reader.data(3) == [6, 7, 8], "who comes back after the gap is not told again"


async def test_who_has_seen_another_log_is_told_so(served: Served, ids: list[str]) -> None:
    reader = await Subscriber.of(served, "/", "Last-Event-ID: 5-99")
    assert reader.headers["stream-gap"] == "unknown"
    gap, *rest = await reader.take(6)
    assert (gap.event, gap.data) == ("stream-gap", {"missing": None, "after": "5-99"})
    assert [told.data for told in rest] == [0, 1, 2, 3, 4]


# -- the end ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_who_has_seen_the_end_is_told_to_stay_away(served: Served, news: Channel, method: str) -> None:
    await news.publish(0)
    await news.close()
    reader = await Subscriber.of(served)
    (end,) = await reader.take(1)
    assert (end.event, end.data) == ("stream-end", {})
    assert await reader.until_end() == []
    assert reader.ended
    again = await Subscriber.of(served, "/", f"Last-Event-ID: {end.id}", method=method)
    assert again.status == 204
    assert await again.until_end() == []
    assert news.subscribers == 0


async def test_who_comes_when_all_is_over_gets_the_end(served: Served, news: Channel, ids: list[str]) -> None:
    await news.close()
    assert [told.event for told in await (await Subscriber.of(served)).until_end()] == ["stream-end"]
    reader = await Subscriber.of(served, "/", f"Last-Event-ID: {ids[2]}")
    assert [told.data for told in await reader.until_end()] == [3, 4, {}]
    assert reader.ended


async def test_a_head_tells_what_a_get_would(served: Served, news: Channel, ids: list[str]) -> None:
    peer = await served.ask(request(method="HEAD"))
    await peer.expect_head(HEAD)
    await peer.send(request("/?last_event_id=5-99", method="HEAD"))
    assert b"\r\nStream-Gap: unknown\r\n" in await peer.head()
    await settle()
    assert news.subscribers == 0
    assert not news._members


# -- a store that is not there ---------------------------------------------------------------------------------------


async def test_the_stream_begins_although_the_store_is_away(
    served: Served, store: Staged, news: Channel, ids: list[str]
) -> None:
    """An EventSource that is answered 503 never comes back."""
    store.before("state", away)
    reader = await Subscriber.of(served, "/", f"Last-Event-ID: {ids[2]}")
    assert reader.status == 200
    assert await reader.data(2) == [3, 4]


@pytest.mark.parametrize("id", ["1700000900000-99", "1700000900000-5", "1700000900000-3"])
async def test_who_has_seen_another_log_is_told_so_when_the_store_is_back(
    served: Served, store: Staged, ids: list[str], id: str
) -> None:
    store.before("state", away)
    reader = await Subscriber.of(served, "/", f"Last-Event-ID: {id}")
    gap, *rest = await reader.take(6)
    assert (gap.event, gap.data) == ("stream-gap", {"missing": None, "after": id})
    assert [told.data for told in rest] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("replay", ["earliest", 5])
async def test_who_has_seen_nothing_is_sent_the_log_when_the_store_is_back(
    serving: Serving, store: Staged, news: Channel, ids: list[str], replay: object
) -> None:
    served = await with_replay(serving, news, replay=replay)
    store.before("state", away)
    reader = await Subscriber.of(served)
    await until(lambda: store.calls["state"] >= 2)
    await settle()
    await news.publish(5)
    assert await reader.data(6) == [0, 1, 2, 3, 4, 5]


async def test_who_has_seen_the_end_gets_an_end_when_the_store_is_back(
    served: Served, store: Staged, news: Channel, ids: list[str]
) -> None:
    await news.close()
    state = await news.state()
    assert state is not None
    store.before("state", away)
    reader = await Subscriber.of(served, "/", f"Last-Event-ID: {state.last}")
    assert await reader.until_end() == []
    assert reader.ended


# -- a run -----------------------------------------------------------------------------------------------------------


async def test_a_run_that_is_not_there_any_more_is_not_found(serving: Serving, hub: Hub, store: Staged) -> None:
    async def numbers() -> AsyncIterator[int]:
        yield 1

    run = await hub.run(numbers(), "job")
    await run.wait_closed()

    async def handler(request: Request) -> object:
        return run.subscribe()

    served = await serving(handler)
    assert [told.data for told in await (await Subscriber.of(served)).until_end()] == [1, {}]
    await store.remove("run/job")
    assert (await Subscriber.of(served)).status == 404
