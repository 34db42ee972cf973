"""Measures how chunks travel: `python -m benchmarks latency`, `flush`, `fanout`, `idle` and `slow`.

A workload (`workloads/`) says what is measured and how. A peer (`peers/`) is one server, as its own documents advise,
run as a process of its own. `turns` lets the peers take turns, `load` reads their answers with as little work as it
can, `answer` takes the bytes apart afterwards; `subscribers` and `channel` do the same where one event goes to many.
`summary` holds the statistics, `report` and `plots` show them.

`python -m benchmarks soak` lets good, bad, slow and vanishing clients loose on a server and looks what is left;
`python -m benchmarks slowhttptest` runs that program.

Linux only: the server and the load are pinned to cores, and the CPU time of the server is read from its process clock.
"""
