"""`make up`: the service on real servers, from nothing, until Ctrl-C."""

import errno
import http.client
import json
import os
import socket
import subprocess
import sys
from contextlib import ExitStack, closing
from typing import IO

from ops.machine import addresses
from ops.tools.embedded import environment, locks, venv
from ops.tools.embedded.console import Failure, step
from ops.tools.embedded.daemon import Daemon
from ops.tools.embedded.paths import LOCAL, PYTHON, ROOT, VENV
from ops.tools.embedded.servers import Servers
from ops.tools.embedded.stand_ins import StandIns

LOOPBACK = "127.0.0.1"
ROWS = 100_000
RUNNING = """
    curl http://127.0.0.1:{port}{path}

The documentation is at http://127.0.0.1:{port}/api/docs. Ctrl-C stops everything; the data stays in .local/.
"""
SILK = """
    http://127.0.0.1:{port}/silk/ shows the requests with their SQL"""


class Gunicorn(Daemon):
    """The service. Ctrl-C does not reach its session, so that it ends its requests first."""

    name = "gunicorn"
    process: subprocess.Popen[bytes]

    def __init__(self, variables: dict[str, str]) -> None:
        super().__init__(LOCAL)
        self.variables = variables
        self.hint = "its last lines above say why"

    def launch(self, lock: IO[bytes]) -> None:
        self.process = subprocess.Popen(
            [
                *(PYTHON, "-m", "gunicorn", "config.asgi:application"),
                *("--pid", str(self.pid_file)),
                # On loopback only: a development server has one user.
                *(
                    f"--bind={addresses.written(host, environment.port())}"
                    for host in addresses.both(LOOPBACK)
                ),
            ],
            cwd=ROOT,
            env=self.variables,
            pass_fds=[lock.fileno()],
            start_new_session=True,
        )

    def answers(self) -> bool:
        """Return whether GET /livez has an answer, of any status."""
        with closing(http.client.HTTPConnection(LOOPBACK, environment.port(), timeout=1)) as client:
            try:
                client.request("GET", "/livez")
                return bool(client.getresponse().status)
            except (OSError, http.client.HTTPException):
                return False

    def first_path(self) -> str:
        """Return the first path in the OpenAPI document without a path parameter, or else the document's own path."""
        with closing(http.client.HTTPConnection(LOOPBACK, environment.port(), timeout=10)) as client:
            client.request("GET", "/api/openapi.json")
            paths: list[str] = [*json.loads(client.getresponse().read())["paths"]]
        return next((path for path in paths if "{" not in path), "/api/openapi.json")


def up() -> int:
    """`up`: start the servers and the service, serve until a signal, and stop all that was started."""
    LOCAL.mkdir(exist_ok=True)
    with locks.only(LOCAL / "up.lock", "`make up` of this checkout is running already"):
        stand_ins = StandIns()
        for left in (Gunicorn({}), stand_ins):  # left by a killed supervisor
            left.stop()
        check_port(environment.port())
        rows = os.environ.get("SEED_ROWS") or str(ROWS)  # of each resource, as for compose.yaml
        if not (rows.isascii() and rows.isdigit()):
            raise Failure(f"SEED_ROWS is {rows!r}, not a number of rows")
        venv.ensure(VENV, environment.groups(), sys.executable)
        servers = Servers(LOCAL / "servers")
        variables = environment.complete(servers) | stand_ins.environment
        environment.check(variables)
        with ExitStack() as stack:
            with step(f"Start {' and '.join(server.name for server in servers.wanted()) or 'no server'}"):
                stack.enter_context(servers)
            if stand_ins.files:
                stack.callback(stand_ins.stop)
                stand_ins.start()
            return _serve(variables, int(rows))


def check_port(port: int) -> None:
    """Raise Failure if gunicorn could not bind `port`: better now than after a minute of work."""
    for host in addresses.both(LOOPBACK):
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    raise Failure(f"PORT {port} is in use; another one: `PORT=8001 make up`") from None
                raise Failure(f"PORT {port} cannot be used: {error.strerror}") from None


def _serve(variables: dict[str, str], rows: int) -> int:
    """Migrate, seed private servers, and run gunicorn until it ends or a signal comes; return the exit status."""
    manage("Migrate", variables, "migrate")
    if os.environ.get("DATABASE_URL"):
        print('No rows are made up in your DATABASE_URL: `make manage ARGS="seed"` does it')
    else:
        print(manage("Seed", variables, "seed", "--rows", str(rows)))
    gunicorn = Gunicorn(variables)
    try:
        gunicorn.start()
        said = SILK + RUNNING if variables.get("PROFILE") else RUNNING
        print(said.format(port=variables["PORT"], path=gunicorn.first_path()), flush=True)
        return gunicorn.process.wait()
    except KeyboardInterrupt:
        return 0
    finally:
        gunicorn.stop()


def manage(label: str, variables: dict[str, str], *arguments: str) -> str:
    """Run manage.py as the step `label`, and return the last line of its output.

    If manage.py fails, print the lines before it, and raise Failure with the last one.
    """
    command = [PYTHON, "manage.py", *arguments]
    with step(label):
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
    *before, last = done.stdout.splitlines() or [f"manage.py {arguments[0]} failed"]
    if done.returncode:
        print("\n".join(before), end="\n" * bool(before), flush=True)
        raise Failure(last)
    return last
