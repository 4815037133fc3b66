"""Postgres and Valkey together, which run while at least one process uses them.

    with Servers(directory, durable=False) as servers:
        os.environ.update(servers.environment)

Several processes may use one directory: the first starts the servers, the last stops them. A server that the
environment names (DATABASE_URL, REDIS_URL, or DATABASE_URL_FILE and so on) is used instead of a private one.
"""

import os
import shutil
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from ops.tools.embedded import locks
from ops.tools.embedded.console import Failure
from ops.tools.embedded.daemon import SocketServer
from ops.tools.embedded.paths import LOCAL
from ops.tools.embedded.postgres import Postgres
from ops.tools.embedded.valkey import Valkey

SOCKET_PATH_LIMIT = 103  # bytes, on macOS; 107 on Linux (unix(7), sun_path without its final NUL)


class Servers:
    """The servers of `directory`. If not `durable`, they are faster, and the directory is removed at the end."""

    def __init__(self, directory: Path, *, durable: bool = True) -> None:
        self.directory = directory
        self.durable = durable
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._turn = directory / "turn.lock"
        self._users = directory / "users.lock"
        sockets = directory / "run"  # closed to other users; a link to elsewhere if its path is too long
        if len(os.fsencode(sockets / ".s.PGSQL.5432.lock")) <= SOCKET_PATH_LIMIT:
            sockets.mkdir(mode=0o700, exist_ok=True)
        elif not sockets.is_dir():  # the first time, or the temporary directory was emptied
            sockets.unlink(missing_ok=True)
            sockets.symlink_to(tempfile.mkdtemp(prefix="sockets-"))
        sockets = sockets.resolve()
        self.postgres = Postgres(directory, sockets, durable=durable)
        self.valkey = Valkey(directory, sockets)

    @property
    def environment(self) -> dict[str, str]:
        """The addresses of the servers, in the variables that config/settings.py reads."""
        own = {"DATABASE_URL": self.postgres.url, "REDIS_URL": self.valkey.url}
        return {
            name: os.environ.get(name) or url
            for name, url in own.items()
            if not os.environ.get(f"{name}_FILE")
        }

    def __enter__(self) -> Self:
        try:
            with locks.turn(self._turn, "starts or stops the servers"):
                for server in self.wanted():
                    server.start()
                self._use = locks.hold(self._users, shared=True)
        except Failure:  # the directory stays, so that the logs can be read
            for server in self.wanted():
                server.stop()
            raise
        except KeyboardInterrupt:
            self.stop_unused()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._use:
            self._use.close()
        self.stop_unused()

    def stop_unused(self) -> bool:
        """Stop the servers and return True, or return False if another process uses them."""
        with locks.turn(self._turn, "starts or stops the servers"):
            last = locks.hold(self._users)
            if not last:
                return False
            with last:
                self.valkey.stop()
                self.postgres.stop()
                if not self.durable:
                    shutil.rmtree(self.postgres.sockets)
                    shutil.rmtree(self.directory)
        return True

    def wanted(self) -> list[SocketServer]:
        """Return the servers that the environment names no replacement for."""
        own: dict[str, SocketServer] = {"DATABASE_URL": self.postgres, "REDIS_URL": self.valkey}
        return [server for name, server in own.items() if not is_given(name)]


def is_given(variable: str) -> bool:
    """Return whether the environment has a value for a variable, in it or in the file that its NAME_FILE names."""
    return bool(os.environ.get(variable) or os.environ.get(f"{variable}_FILE"))


def remove_leftovers() -> None:
    """Stop and remove the throwaway servers that killed processes have left."""
    for directory in LOCAL.glob("test-*"):
        Servers(directory, durable=False).stop_unused()
