"""Proxies in front of the service, where they are installed; without them a test is skipped."""

import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.ops.telemetry.conftest import eventually
from tests.service import PATIENCE

NGINX = """
daemon off; master_process off; pid {directory}/pid; error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy; fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi; scgi_temp_path {directory}/scgi;
    {servers}
}}
"""
HAPROXY = """
defaults
    mode http
    timeout connect 5s
    timeout client 10s
    timeout server 10s
    timeout http-request 10s
{sections}
"""


@contextmanager
def nginx(servers: str, directory: Path) -> Iterator[None]:
    """Runs with these `server` and `upstream` blocks until the block ends; its files are in `directory`."""
    file, pid = directory / "nginx.conf", directory / "pid"
    file.write_text(NGINX.format(directory=directory, servers=servers))
    with _running("nginx", ["-p", str(directory), "-c", str(file)], directory, pid.exists):
        yield


@contextmanager
def haproxy(sections: str, port: int, directory: Path) -> Iterator[None]:
    """Runs with these `frontend` and `backend` sections, one of which binds the port, until the block ends."""

    def listens() -> bool:
        with socket.socket() as one:
            return one.connect_ex(("127.0.0.1", port)) == 0

    file = directory / "haproxy.cfg"
    file.write_text(HAPROXY.format(sections=sections))
    with _running("haproxy", ["-db", "-f", str(file)], directory, listens):
        yield


@contextmanager
def _running(
    name: str, arguments: Sequence[str], directory: Path, listens: Callable[[], bool]
) -> Iterator[None]:
    program = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    if not program:
        pytest.skip(f"{name} is not installed")
    log = directory / f"{name}.log"
    with log.open("wb") as output:
        process = subprocess.Popen([program, *arguments], stdout=output, stderr=output)

    def has_started() -> bool:
        assert process.poll() is None, log.read_text()
        return listens()

    try:
        eventually(has_started)
        yield
    finally:
        process.terminate()
        process.wait(PATIENCE)
