"""Does it stay right, and does it stay small: `python -m benchmarks soak`.

A server (`server`) is visited by good, bad, slow and vanishing clients (`clients`) at the same time, for minutes, on
asyncio and on uvloop. Then all clients leave, and nothing of them may be left: no task, no generator, no socket, and
no memory beyond what was in use after a warm-up with the same clients. Exit status 1 says that something was.

The server's own deadlines are two seconds, so that those who live by them are cut many times in a run. The
memory is what is resident after a full garbage collection and `malloc_trim`; beside it the number of objects that the
collector knows is held to the same bound, since no allocator blurs it.
"""
