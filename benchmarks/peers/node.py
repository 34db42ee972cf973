"""Node's http: `server.js`."""

import os
import shutil
from pathlib import Path

from benchmarks.certificate import certificate
from benchmarks.peers.common import announce, arguments, inherited_socket

SOURCE = Path(__file__).with_name("server.js")


def main() -> None:
    """Listen, and become Node."""
    node = shutil.which("node")
    assert node is not None, "looked for before"
    options = arguments().parse_args()
    more = [*(["--tls", str(certificate())] if options.tls else []), *(["--gzip"] if options.gzip else [])]
    sock = inherited_socket()
    announce(sock.getsockname()[1])
    os.execv(node, [node, str(SOURCE), str(sock.fileno()), *more])


if __name__ == "__main__":
    main()
