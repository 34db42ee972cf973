"""Prices of many symbols, of which a slow reader gets the newest, and never a backlog.

It shows channels with `behind="latest"`. Whoever subscribes is sent the newest price at once, and then each that comes
while it keeps up; one that falls behind skips what it missed, and costs nothing. `n` counts the rounds: where it jumps,
prices were skipped. All prices together are one event of the channel "all", so of them, too, only the newest counts.

    $ python ticker.py --symbols 3 --every 0.2 --port 8000 &
    $ curl -sN -H "Accept: application/jsonl" localhost:8000/prices/AAB
    $ curl -sN localhost:8000/prices

or open http://localhost:8000. To see it skip, with `--symbols 1000 --every 0.01`: stop the second curl by Ctrl-Z, wait,
type fg. (The first one's prices are short: the system holds many of them for a reader that has stopped.)
"""

import argparse
import asyncio
import itertools
import random
import string
import sys

from rawstream import Hub, Response, Router, errors, serve

hub = Hub("memory:?entries=1")  # nobody asks for older ones
router = Router()
prices = {}


@router.get("/prices")
async def everything(request):
    return hub.channel("all", behind="latest").subscribe()


@router.get("/prices/{symbol}")
async def one(request):
    symbol = request.params["symbol"]
    if symbol not in prices:
        raise errors.NotFound(f"there is no symbol {symbol}")
    return hub.channel(symbol, behind="latest").subscribe()


async def trade(seconds):
    """Move all prices a little, again and again."""
    for n in itertools.count(1):
        for symbol in prices:
            prices[symbol] = round(prices[symbol] * random.gauss(1, 0.001), 2)
            await hub.channel(symbol, behind="latest").publish({"n": n, "price": prices[symbol]})
        await hub.channel("all", behind="latest").publish({"n": n, "prices": prices})
        await asyncio.sleep(seconds)


async def main(symbols, every, port):
    names = map("".join, itertools.product(string.ascii_uppercase, repeat=3))
    prices.update(dict.fromkeys(itertools.islice(names, symbols), 100.0))
    # The group is outside the server: should `trade` fail, the server closes.
    async with hub, asyncio.TaskGroup() as group, serve(router, port=port, signals=True) as server:
        print("ticker.py listening on http://{}:{} (Ctrl-C ends it)".format(*server.addresses[0]), file=sys.stderr)
        trading = group.create_task(trade(every))
        await server.wait_closed()
        trading.cancel()


@router.get("/")
async def page(request):
    return Response.text(PAGE, headers={"Content-Type": "text/html; charset=utf-8"})


PAGE = """<!doctype html><meta charset="utf-8"><title>Prices</title><link rel="icon" href="data:,">
<style>body { columns: 8; font: 14px monospace } .up { color: green } .down { color: #c00 }</style>
<body><script>
const cells = {};
new EventSource("/prices").onmessage = (event) => {
  for (const [symbol, price] of Object.entries(JSON.parse(event.data).prices)) {
    const cell = cells[symbol] ??= document.body.appendChild(document.createElement("div"));
    cell.className = price > cell.price ? "up" : price < cell.price ? "down" : "";
    cell.textContent = `${symbol} ${(cell.price = price).toFixed(2)}`;
  }
};
</script>"""


if __name__ == "__main__":
    options = argparse.ArgumentParser(description="Prices that move.")
    options.add_argument("--symbols", type=int, default=100, choices=range(1, 5001), metavar="1 to 5000")
    options.add_argument("--every", type=float, default=0.2, metavar="SECONDS")
    options.add_argument("--port", type=int, default=8000)
    asyncio.run(main(**vars(options.parse_args())))
