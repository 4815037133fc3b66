"""The private Postgres: one cluster in a directory, reached through a unix socket only."""

import shlex
import shutil
import signal
from contextlib import suppress
from pathlib import Path
from typing import IO
from urllib.parse import quote

from ops.embedded.daemon import SocketServer
from ops.embedded.paths import postgres_program

USER = DATABASE = "postgres"  # initdb makes both
SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "500",  # workers x pools x 4 (config/settings.py), on a machine of many cores
    "max_wal_size": "4GB",  # seeding millions of rows makes few checkpoints
}
# For tests: what a crash of the machine loses is made anew anyway.
THROWAWAY = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


class Postgres(SocketServer):
    name = "postgres"
    socket_name = ".s.PGSQL.5432"
    stop_signal = signal.SIGINT  # its "fast shutdown": ends the sessions, then writes everything

    def __init__(self, directory: Path, sockets: Path, *, durable: bool) -> None:
        super().__init__(directory, sockets)
        self.data = directory / "postgres"
        self.pid_file = self.data / "postmaster.pid"
        self.settings = SETTINGS if durable else SETTINGS | THROWAWAY

    @property
    def url(self) -> str:
        return f"postgresql://{USER}@/{DATABASE}?host={quote(str(self.sockets), safe='')}"

    def answers(self) -> bool:
        """While it starts or stops it takes connections too, only to refuse them; the pid file says so."""
        with suppress(OSError):
            return "ready" in self.pid_file.read_text() and super().answers()
        return False

    def launch(self, lock: IO[bytes]) -> None:
        if not self.data.exists():
            self._create(lock)
        # Of a server that was killed. Postgres itself would believe a pid that nobody reaped, or that is another's.
        (self.sockets / f"{self.socket_name}.lock").unlink(missing_ok=True)
        settings = self.settings | {"unix_socket_directories": f'"{self.sockets}"'}
        options = shlex.join(f"--{name}={value}" for name, value in settings.items())
        self.run(lock, postgres_program("pg_ctl"), "start", "-D", self.data, "-o", options)

    def _create(self, lock: IO[bytes]) -> None:
        """Make the cluster under another name first: the right name means that it is complete."""
        unfinished = self.directory / "postgres.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        locale = ("--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8")
        # "trust": only the account itself (and root) can open the socket's directory.
        login = (f"--username={USER}", "--auth=trust")
        self.run(lock, postgres_program("initdb"), "-D", unfinished, *login, *locale, "--no-sync")
        unfinished.rename(self.data)
