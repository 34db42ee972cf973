"""An OpenAI-compatible API that says what it was told: to try chat.py with, without a key or a network.

It shows how such an API is served: an event a token, and [DONE] at the end.

    $ python -m rawstream serve parrot:router --port 8001 &
    $ curl -sN -d '{"messages":[{"role":"user","content":"Good day"}]}' localhost:8001/v1/chat/completions
"""

import asyncio
import re

from rawstream import Router, Stream, errors

router = Router()


@router.post("/v1/chat/completions")
async def completions(request):
    asked = await request.json()
    try:
        said = str(asked["messages"][-1]["content"])
    except (IndexError, KeyError, TypeError):
        raise errors.HTTPError(422, 'send {"messages": [{"role": "user", "content": "..."}]}') from None
    return Stream(chunks(f"You said: {said}"), format="sse")


async def chunks(text):
    for word in re.findall(r"\s*\S+", text):
        yield chunk({"content": word}, None)
        await asyncio.sleep(0.05)
    yield chunk({}, "stop")
    yield "[DONE]"


def chunk(delta, finish_reason):
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    return {"object": "chat.completion.chunk", "model": "parrot", "choices": [choice]}
