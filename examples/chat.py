"""Chat with any model behind an OpenAI-compatible API; the answer is relayed token by token, as it is made.

It shows a stream that is made of another one. `fetch` reads the API's events, and `yield` hands the text on: a slow
reader slows the API down, and who leaves, or presses Stop, ends the request to the API at once, and with it the costs.
What goes wrong before the first token is answered with a status; what goes wrong later is told in the stream.

The environment names the API: OPENAI_BASE_URL, OPENAI_MODEL, and OPENAI_API_KEY, which need not be there. parrot.py is
such an API, which needs neither a key nor a network. In this directory:

    $ python -m rawstream serve parrot:router --port 8001 &
    $ OPENAI_BASE_URL=http://localhost:8001/v1 python -m rawstream serve chat:router --port 8000 &
    $ curl -sN -H "Accept: text/plain" -d '{"messages":[{"role":"user","content":"Good day"}]}' localhost:8000/chat

or open http://localhost:8000. Without the first variable it asks OpenAI itself.
"""

import json
import logging
import os

from rawstream import ClientTimeouts, Response, Router, Stream, errors, fetch

BASE_URL = os.environ.get("OPENAI_BASE_URL", "https://api.openai.com/v1").rstrip("/")
MODEL = os.environ.get("OPENAI_MODEL", "gpt-4o-mini")
KEY = os.environ.get("OPENAI_API_KEY")
PATIENCE = ClientTimeouts(head=300, idle=300)  # seconds: some models think for minutes before they say anything

router = Router()


@router.get("/")
async def page(request):
    return Response.text(PAGE, headers={"Content-Type": "text/html; charset=utf-8"})


@router.post("/chat")
async def chat(request):
    asked = await request.json()
    if not isinstance(asked, dict) or not isinstance(asked.get("messages"), list):
        raise errors.HTTPError(422, 'send {"messages": [{"role": "user", "content": "..."}]}')
    return Stream(answer(asked["messages"]), head="item")  # until the first token, an error is a proper status


async def answer(messages):
    headers = {"Accept": "text/event-stream"} | ({"Authorization": f"Bearer {KEY}"} if KEY else {})
    asked = {"model": MODEL, "messages": messages, "stream": True}
    try:
        async with fetch(f"{BASE_URL}/chat/completions", headers=headers, json=asked, timeouts=PATIENCE) as response:
            async for event in response.events():
                if event.data == "[DONE]":
                    return
                chunk = json.loads(event.data)
                if "choices" not in chunk:  # some tell of a failure so
                    raise errors.ContentError(event.data[:200])
                for choice in chunk["choices"]:
                    if text := choice.get("delta", {}).get("content"):
                        yield text
        raise errors.IncompleteResponse("it ended without [DONE]")
    except errors.FetchError as exc:
        logging.getLogger("chat").warning("%s", exc)  # not for everybody: it may quote the key
        raise errors.HTTPError(502, "the model's API failed") from exc


PAGE = """<!doctype html><meta charset="utf-8"><title>Chat</title><link rel="icon" href="data:,">
<pre id="log" style="white-space: pre-wrap"></pre>
<form><input id="say" size="60" autofocus> <button>Say</button> <button type="button" id="stop">Stop</button></form>
<script>
const messages = [], log = document.querySelector("#log"), say = document.querySelector("#say");
let stopping = new AbortController(), last = Promise.resolve();
document.querySelector("#stop").onclick = () => stopping.abort(new Error("stopped"));
document.querySelector("form").onsubmit = (event) => {
  event.preventDefault();
  stopping.abort(new Error("stopped"));
  stopping = new AbortController();
  last = last.then(turn.bind(null, say.value, stopping.signal));  // once the one before has ended
  say.value = "";
};
async function turn(content, signal) {
  messages.push({role: "user", content});
  log.append(`You: ${content}\\n`);
  const reply = {role: "assistant", content: ""}, body = JSON.stringify({messages});
  try {
    const response = await fetch("/chat", {method: "POST", headers: {Accept: "application/jsonl"}, body, signal});
    if (!response.ok) throw new Error(await response.text());
    let held = "";
    for await (const piece of response.body.pipeThrough(new TextDecoderStream())) {
      const lines = (held + piece).split("\\n");
      held = lines.pop();
      for (const item of lines.map((line) => JSON.parse(line))) {
        if (item["stream-error"]) throw new Error(item["stream-error"].error);
        reply.content += item;
        log.append(item);
      }
    }
  } catch (error) { log.append(` [${error.message}]`); }
  messages.push(reply);
  log.append("\\n");
}
</script>"""
