"""A long job that is begun by one request, and watched by others: who comes back has missed nothing.

It shows runs. The job is a generator that works whether or not anybody watches; what it yields is kept, so a reload, a
second tab or a cut connection goes on where it was, and who comes late sees all of it. DELETE stops it for everybody.

    $ python -m rawstream serve jobs:router --port 8000 &
    $ curl -s -H "Idempotency-Key: my-primes" -d '{"below": 2000000}' localhost:8000/jobs
    $ curl -sN -H "Accept: application/jsonl" localhost:8000/jobs/81984e9284b4f8ee8bd7678637636f60

or open http://localhost:8000. The second command may be repeated: it begins the job once, because of its key, of which
the id is made; without a key it is a random one. `curl -X DELETE localhost:8000/jobs/...` stops the job.
"""

import asyncio

from rawstream import Event, Hub, Response, Router, errors
from rawstream.channels.http import add_jobs

STEPS = 10
hub = Hub()  # in memory; "redis://..." lets any number of servers tell of a job
router = Router()


async def start(request):
    match await request.json():
        case {"below": int(below)} if 1000 <= below <= 10**10:
            return primes(below)
    raise errors.HTTPError(422, 'send {"below": 2000000}: a whole number from 1000 to 10000000000')


add_jobs(router, hub, start)


async def primes(below):
    """Count them, and tell after each step how far it is."""
    found = 0
    for step in range(1, STEPS + 1):
        first, last = (step - 1) * below // STEPS, step * below // STEPS
        for begin in range(first, last, 100_000):  # a thread cannot be cancelled: so it gets a little at a time
            found += await asyncio.to_thread(count, begin, min(begin + 100_000, last))
        yield Event({"percent": 100 * step // STEPS, "found": found}, event="progress")
    yield Event({"below": below, "primes": found}, event="result")


def count(first, last):
    """How many primes there are from `first` to below `last`: a sieve of Eratosthenes."""
    sieve = bytearray([1]) * (last - first)
    for n in range(min(2, last)):
        if n >= first:
            sieve[n - first] = 0
    for n in range(2, int(last**0.5) + 1):
        multiples = slice(max(n * n, -first // n * -n) - first, None, n)
        sieve[multiples] = bytes(len(sieve[multiples]))
    return sum(sieve)


@router.get("/")
async def page(request):
    return Response.text(PAGE, headers={"Content-Type": "text/html; charset=utf-8"})


PAGE = """<!doctype html><meta charset="utf-8"><title>A job</title><link rel="icon" href="data:,">
<button id="start">Count the primes below 20 million</button> <button id="stop">Stop</button>
<p><progress max="100" value="0"></progress> <output></output></p>
<script>
const one = (selector) => document.querySelector(selector);
let source;
function watch() {  // the id is in the page's address: it outlives a reload, and can be sent to others
  const show = (event) => {
    const data = JSON.parse(event.data);
    one("progress").value = data.percent ?? one("progress").value;
    if (event.type !== "stream-end" || data.stopped) one("output").textContent = event.type + " " + event.data;
  };
  source?.close();
  source = new EventSource("/jobs/" + location.hash.slice(1));
  for (const name of ["progress", "result", "stream-end", "stream-error"]) source.addEventListener(name, show);
}
one("#start").onclick = async () => {
  const response = await fetch("/jobs", {method: "POST", body: JSON.stringify({below: 20_000_000})});
  location.hash = (await response.json()).id;
  watch();
};
one("#stop").onclick = () => fetch("/jobs/" + location.hash.slice(1), {method: "DELETE"});
if (location.hash) watch();
</script>"""
