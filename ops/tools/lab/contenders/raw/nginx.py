"""nginx and a file: the same bytes from a server in C. `python nginx.py PORT WORKERS` becomes nginx.

The file and the configuration are written into the current directory.
"""

import getpass
import os
import sys
from pathlib import Path

from ops.tools.lab.contenders.raw.page import page

# nginx's defaults but for: no access log; connections stay open after 1,000 requests; the values of nginx's guides
# for static files. If root starts nginx, `user` lets the workers read root's directory.
CONFIGURATION = """
{user}
daemon off;
pid nginx.pid;
worker_processes {workers};
error_log stderr warn;
events {{
    worker_connections 4096;
}}
http {{
    access_log off;
    sendfile on;
    tcp_nopush on;
    keepalive_requests 1000000000;
    open_file_cache max=100 inactive=600s;
    open_file_cache_valid 600s;
    client_body_temp_path nginx-body;
    proxy_temp_path nginx-proxy;
    fastcgi_temp_path nginx-fastcgi;
    uwsgi_temp_path nginx-uwsgi;
    scgi_temp_path nginx-scgi;
    server {{
        listen 127.0.0.1:{port};
        location = /api/products {{
            default_type application/json;
            alias page.json;
        }}
    }}
}}
"""


def main(port: int, workers: int) -> None:
    user = f"user {getpass.getuser()};" if os.geteuid() == 0 else ""
    Path("page.json").write_bytes(page(100))
    Path("nginx.conf").write_text(CONFIGURATION.format(port=port, workers=workers, user=user))
    here = f"{Path.cwd()}/"
    os.execlp("nginx", "nginx", "-p", here, "-c", f"{here}nginx.conf")  # noqa: S606  the very program


main(*map(int, sys.argv[1:]))
