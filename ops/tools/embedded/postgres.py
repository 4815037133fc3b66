"""The private Postgres: one cluster in a directory, reached through a unix socket only."""

import os
import shlex
import shutil
import signal
import socket
from contextlib import suppress
from pathlib import Path
from typing import IO
from urllib.parse import quote

from ops.tools.embedded.console import Failure, until
from ops.tools.embedded.daemon import SocketServer
from ops.tools.embedded.paths import postgres_program

PORT = 5432  # part of the socket's name; always given, since libpq would otherwise take the user's PGPORT
USER = DATABASE = "postgres"  # initdb makes both
SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "500",  # for many workers; each has up to 14 connections (docs/checks.md)
    "max_wal_size": "4GB",  # seeding millions of rows makes few checkpoints
}
# glibc's malloc: keep the top of the heap, up to 16 MiB a session. Without this a page of 20 kB costs up to 10 page
# faults, a fifth of its time in Postgres (docs/decisions/0017-postgres-malloc.md).
MALLOC = {
    "MALLOC_TRIM_THRESHOLD_": str(16 * 2**20),  # B
    "MALLOC_TOP_PAD_": str(2**18),  # B
    "MALLOC_MMAP_THRESHOLD_": str(4 * 2**20),  # B
}
# For tests: if the machine crashes, the data may be lost, but tests make their data anew anyway.
THROWAWAY = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


class Postgres(SocketServer):
    name = "postgres"
    socket_name = f".s.PGSQL.{PORT}"
    stop_signal = signal.SIGINT  # "fast shutdown": Postgres ends the sessions, then writes everything

    def __init__(self, directory: Path, sockets: Path, *, durable: bool) -> None:
        """`directory` has the cluster, `sockets` the socket. If not `durable`, Postgres runs with THROWAWAY."""
        super().__init__(directory, sockets)
        self.data = directory / "postgres"
        self.pid_file = self.data / "postmaster.pid"
        self.settings = SETTINGS if durable else SETTINGS | THROWAWAY

    @property
    def url(self) -> str:
        return f"postgresql://{USER}@/{DATABASE}?host={quote(str(self.sockets), safe='')}&port={PORT}"

    def answers(self) -> bool:
        """Return whether Postgres takes connections and the pid file says that it is ready.

        While Postgres starts or stops, it also takes connections, but refuses each of them.
        """
        with suppress(OSError):
            return "ready" in self.pid_file.read_text() and super().answers()
        return False

    def runs_by_hand(self) -> bool:
        """Tell whether a postmaster that was started by hand uses the data, as after `pg_ctl restart`.

        `start` removes the pid file of a killed postmaster. It must not remove that of a running one: this postmaster
        would stop, but until then two would write to the same data. Raises Failure if the postmaster does not listen
        in `sockets`.
        """
        if self.alive() or not (pid := self._listener()):
            return False
        try:
            until(self.answers, "it", seconds=5)
        except Failure:
            raise Failure(
                f"Postgres was started by hand on {self.data}, and does not listen in {self.sockets}: "
                f"stop it with `kill -INT {pid}`"
            ) from None
        return True

    def _listener(self) -> str | None:
        """Return the pid in the pid file, or None if nothing listens at the address in it: the file can be stale.

        https://www.postgresql.org/docs/current/storage-file-layout.html describes the lines of the file.
        """
        with suppress(OSError, ValueError):
            pid, _data, _started, port, directory, address = self.pid_file.read_text().splitlines()[:6]
            os.kill(int(pid), 0)
            if directory:
                with socket.socket(socket.AF_UNIX) as client:
                    client.connect(f"{directory}/.s.PGSQL.{port}")
                    return pid
            with socket.create_connection(("localhost" if address == "*" else address, int(port)), timeout=1):
                return pid
        return None

    def launch(self, lock: IO[bytes]) -> None:
        if not self.data.exists():
            # initdb works in a directory with another name; the final name means that the cluster is complete.
            unfinished = self.directory / "postgres.unfinished"
            shutil.rmtree(unfinished, ignore_errors=True)
            provider = ("--locale-provider=builtin", "--builtin-locale=C.UTF-8")
            locale = ("--encoding=UTF8", "--locale=C", *provider)
            # "trust" asks for no password: only the account itself and root can open the socket's directory.
            login = (f"--username={USER}", "--auth=trust")
            self.run(lock, postgres_program("initdb"), "-D", unfinished, *login, *locale, "--no-sync")
            unfinished.rename(self.data)
        # A killed server leaves this lock file. Postgres would take a zombie or another program with the pid in the
        # file for that server, and refuse to start.
        (self.sockets / f"{self.socket_name}.lock").unlink(missing_ok=True)
        settings = self.settings | {"port": str(PORT), "unix_socket_directories": f'"{self.sockets}"'}
        options = shlex.join(f"--{name}={value}" for name, value in settings.items())
        self.run(lock, postgres_program("pg_ctl"), "start", "-D", self.data, "-o", options, variables=MALLOC)
