"""nginx as a proxy in front of the service, where it is installed; without it the test is skipped."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.ops.telemetry.conftest import eventually
from tests.service import PATIENCE

CONFIGURATION = """
daemon off; master_process off; pid {directory}/pid; error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy; fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi; scgi_temp_path {directory}/scgi;
    {servers}
}}
"""


@contextmanager
def nginx(servers: str, directory: Path) -> Iterator[None]:
    """Runs with these `server` and `upstream` blocks until the block ends; its files are in `directory`."""
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if not program:
        pytest.skip("nginx is not installed")
    configuration, log = directory / "nginx.conf", directory / "nginx.log"
    configuration.write_text(CONFIGURATION.format(directory=directory, servers=servers))
    with log.open("wb") as output:
        process = subprocess.Popen(
            [program, "-p", str(directory), "-c", str(configuration)], stdout=output, stderr=output
        )

    def listens() -> bool:
        """It writes its pid once it does."""
        assert process.poll() is None, log.read_text()
        return (directory / "pid").exists()

    try:
        eventually(listens)
        yield
    finally:
        process.terminate()
        process.wait(PATIENCE)
