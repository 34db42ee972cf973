"""uvicorn with Starlette's `StreamingResponse`: https://www.uvicorn.org/#config-and-server-instances

`--http httptools --loop uvloop` is what `pip install uvicorn[standard]` gives, and the fastest; `--http h11 --loop
asyncio` is what plain `pip install uvicorn` gives. No access log, as in production behind a proxy.
"""

from benchmarks.peers.common import arguments
from benchmarks.peers.starlette_app import app, compressed
from benchmarks.peers.uvicorn_server import serve

if __name__ == "__main__":
    parser = arguments()
    parser.add_argument("--http", choices=("httptools", "h11"), required=True)
    options = parser.parse_args()
    serve(compressed if options.gzip else app, options)
