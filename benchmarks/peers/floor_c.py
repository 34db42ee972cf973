"""The floor in C: `floor.c`. What a fan-out costs the kernel, and no interpreter."""

from pathlib import Path

from benchmarks.peers.compiled import become

SOURCE = Path(__file__).with_name("floor.c")

if __name__ == "__main__":
    become(SOURCE, lambda program: ("cc", "-O2", "-o", program, str(SOURCE)))
