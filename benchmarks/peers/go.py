"""Go's net/http: `channel.go`. As many threads run Go code as there are cores to run on, which is one here."""

from pathlib import Path

from benchmarks.peers.compiled import become

SOURCE = Path(__file__).with_name("channel.go")

if __name__ == "__main__":
    become(SOURCE, lambda program: ("go", "build", "-o", program, str(SOURCE)), {"GO111MODULE": "off"})
