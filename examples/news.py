"""A news feed over any number of processes: published in one, read in all. It needs the extra `redis`, and a Redis.

It shows channels in a shared store. A reader may come back to any of the servers with the id of the last event that it
saw, and goes on behind it. While Redis is away, publishing is refused (503), and readers keep their connections.

    $ redis-server --port 6379 &
    $ REDIS_URL=redis://localhost:6379/0 python -m rawstream serve news:router --port 8000 &
    $ REDIS_URL=redis://localhost:6379/0 python -m rawstream serve news:router --port 8001 &
    $ curl -s -d '{"title": "First"}' localhost:8000/news
    $ curl -s -d '{"title": "Second"}' localhost:8001/news
    $ curl -sN "localhost:8000/news?last_event_id=earliest"

`--workers 4` starts four processes on one port. Who may publish is for your own code to say: here everybody may.
"""

import os

from rawstream import Hub, Response, Router, errors

hub = Hub(os.environ.get("REDIS_URL", "redis://localhost:6379/0"))
router = Router()


@router.get("/news")
async def read(request):
    return hub.channel("news").subscribe()


@router.post("/news")
async def publish(request):
    news = await request.json()
    if not isinstance(news, dict) or not isinstance(news.get("title"), str):
        raise errors.HTTPError(422, 'send {"title": "..."}')
    # With a key, who got no answer may send it again: it is published once.
    id = await hub.channel("news").publish(news, key=request.headers.get("idempotency-key"))
    return Response.json({"id": id}, 201)
