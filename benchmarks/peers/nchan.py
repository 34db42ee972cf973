"""nginx with nchan, one worker: https://nchan.io/ ("The basics", and `eventsource` subscribers).

nginx is handed its listening socket the way it hands it to its own successor: the number in the variable `NGINX`. Its
configuration is a file without a name (`memfd_create`), since every turn has another port: nothing is left behind by an
nginx that is killed, and two runs at once don't read each other's.
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
    directory = (
        CACHE / "nchan"
    )  # for the number of its process, which nobody reads, and bodies, which all fit in memory
    directory.mkdir(parents=True, exist_ok=True)
    files = os.sysconf("SC_OPEN_MAX")
    configuration = os.memfd_create("nginx.conf", 0)  # 0: to be inherited by nginx
    os.write(configuration, _CONFIGURATION.format(module=NCHAN, directory=directory, port=port, files=files).encode())
    announce(port)
    os.execve(nginx, [nginx, "-c", f"/proc/self/fd/{configuration}"], {**os.environ, "NGINX": f"{sock.fileno()};"})


if __name__ == "__main__":
    main()
