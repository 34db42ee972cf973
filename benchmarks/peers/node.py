"""Node's http: `channel.js`."""

import os
import shutil
from pathlib import Path

from benchmarks.peers.common import announce, inherited_socket

SOURCE = Path(__file__).with_name("channel.js")


def main() -> None:
    """Listen, and become Node."""
    node = shutil.which("node")
    assert node is not None, "looked for before"
    sock = inherited_socket()
    announce(sock.getsockname()[1])
    os.execv(node, [node, str(SOURCE), str(sock.fileno())])


if __name__ == "__main__":
    main()
