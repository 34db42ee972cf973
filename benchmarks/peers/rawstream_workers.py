"""rawstream in several processes, as its command line runs it: `python -m rawstream serve ... --workers N`.

`/worker` tells which process has answered: so whoever measures knows them all, and that they serve.
"""

import os
import sys

from benchmarks.peers.common import announce, arguments, inherited_socket
from benchmarks.peers.rawstream_server import paced
from rawstream import Request, Response, Router

router = Router()
router.get("/paced")(paced)


@router.get("/worker")
async def worker(request: Request) -> Response:
    """The id of this process. It closes its connection: the next one may come to another process."""
    return Response.text(str(os.getpid()), headers={"Connection": "close"})


if __name__ == "__main__":
    parser = arguments()
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    listening = inherited_socket()
    announce(listening.getsockname()[1])
    command = [
        sys.executable, "-m", "rawstream", "serve", "benchmarks.peers.rawstream_workers:router",
        "--fd", str(listening.fileno()), "--workers", str(options.workers), "--loop", options.loop,
    ]  # fmt: skip
    os.execv(sys.executable, command)
