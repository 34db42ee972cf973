"""The end of a process that ran a loop: what is at work still is told to end, and not waited for without end.

`asyncio.run` waits for ever, for a task that swallows its cancellation and for the threads of `asyncio.to_thread`.
"""

from __future__ import annotations

import asyncio
import signal
from functools import partial

_MOMENT = 0.5  # seconds for all of it


async def wind_up() -> str:
    """End all tasks but this one, all generators and the loop's threads, as `asyncio.run` does, in a moment.

    Returns which of them have not ended, or "". Belongs to the main thread.
    """
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, lambda: None)  # a Ctrl-C now would leave the waiting to `asyncio.run`
    until = loop.time() + _MOMENT
    for what, end in (
        ("tasks", partial(_cancel, asyncio.all_tasks() - {asyncio.current_task()})),
        ("generators", loop.shutdown_asyncgens),
        ("threads", loop.shutdown_default_executor),  # cancelled, it would wait for them all the same
    ):
        _, late = await asyncio.wait({loop.create_task(end())}, timeout=until - loop.time())
        if late:
            return what
    return ""


async def _cancel(tasks: set[asyncio.Task[object]]) -> None:
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)
