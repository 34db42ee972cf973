"""nginx with nchan, one worker: https://nchan.io/ ("The basics", and `eventsource` subscribers).

nginx is handed its listening socket the way it hands it to its own successor: the number in the variable `NGINX`.
"""

import os
import shutil

from benchmarks.peers import CACHE, NCHAN
from benchmarks.peers.common import announce, inherited_socket

_CONFIGURATION = """
load_module {module};
daemon off;
worker_processes 1;
worker_rlimit_nofile {files};
pid {directory}/pid;
error_log stderr error;
events {{ worker_connections {files}; }}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    server {{
        listen 127.0.0.1:{port};
        location = /fanout {{
            nchan_subscriber eventsource;
            nchan_subscriber_first_message newest;
            nchan_channel_id news;
        }}
        location = /publish {{ nchan_publisher; nchan_channel_id news; }}
        location = /short {{ return 200 "ok"; }}
    }}
}}
"""


def main() -> None:
    """Listen, and become nginx."""
    nginx = shutil.which("nginx")
    assert nginx is not None, "looked for before"
    sock = inherited_socket()
    port = sock.getsockname()[1]
    directory = CACHE / "nchan"  # one for all turns, since nginx is killed and would leave each behind
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "nginx.conf"
    files = os.sysconf("SC_OPEN_MAX")
    path.write_text(_CONFIGURATION.format(module=NCHAN, directory=directory, port=port, files=files), "utf-8")
    announce(port)
    os.execve(nginx, [nginx, "-c", str(path)], {**os.environ, "NGINX": f"{sock.fileno()};"})


if __name__ == "__main__":
    main()
