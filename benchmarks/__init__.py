"""Measures how chunks travel: `python -m benchmarks all`, or one of its parts: `latency`, `tls`, `gzip`, `flush`,
`fanout`, `idle`, `slow` and `scale`.

A workload (`workloads/`) says what is measured and how. A peer (`peers/`) is one server, as its own documents advise,
run as a process of its own (`process`). `turns` lets the peers take turns, `load` reads their answers with as little
work as it can, `answer` takes the bytes apart afterwards; `subscribers` and `channel` do the same where one event goes
to many. `noise` looks how quiet the machine was, `syscalls` counts system calls, `summary` holds the statistics,
`targets` what is wanted; `plan` and `session` make a run of it all, `report` and `page` show it. `output` claims the
place where results go, `kept` reads them again, and `compare` holds two of them against each other by the rules of
`changes`.

`python -m benchmarks soak` lets good, bad, slow and vanishing clients loose on a server and looks what is left;
`python -m benchmarks slowhttptest` runs that program.

Linux only: the server and the load are pinned to cores, and the CPU time of the server is read from its process clock.
"""
