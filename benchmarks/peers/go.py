"""Go's net/http: `server.go`. As many threads run Go code as there are cores to run on, which is one here."""

from pathlib import Path

from benchmarks.certificate import certificate
from benchmarks.peers.common import arguments
from benchmarks.peers.compiled import become

SOURCE = Path(__file__).with_name("server.go")

if __name__ == "__main__":
    options = arguments().parse_args()
    become(
        SOURCE,
        lambda program: ("go", "build", "-o", program, str(SOURCE)),
        {"GO111MODULE": "off"},
        [*(["-tls", str(certificate())] if options.tls else []), *(["-gzip"] if options.gzip else [])],
    )
