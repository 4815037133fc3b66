"""Background processes that outlive a killed supervisor, and that the next supervisor finds again.

Each process inherits a lock, and so do its children. So `alive` is exact: neither a stale pid file nor a reused pid
deceives it, and a server is gone only when its last child process is.
"""

import os
import signal
import socket
import subprocess
from collections.abc import Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import IO

from ops.tools.embedded import account, locks
from ops.tools.embedded.console import Failure, until


class Daemon:
    """A process with its lock, pid and log in `directory`. Subclasses define how it starts and when it answers."""

    name: str
    stop_signal = signal.SIGTERM

    def __init__(self, directory: Path) -> None:
        self.lock = directory / f"{self.name}.lock"
        self.log = directory / f"{self.name}.log"
        self.pid_file = directory / f"{self.name}.pid"
        self.hint = f"see {self.log}"

    @property
    def pid(self) -> int:
        """The process id. Raises OSError without a pid file, ValueError or IndexError without a pid in the file."""
        return int(self.pid_file.read_text().split()[0])

    def launch(self, lock: IO[bytes]) -> None:
        """Start the process, which inherits the lock."""
        raise NotImplementedError

    def answers(self) -> bool:
        """Return whether the process takes requests."""
        raise NotImplementedError

    def alive(self) -> bool:
        """Tell whether the process or any of its children is left."""
        return locks.held(self.lock)

    def start(self) -> None:
        """Start the process, or adopt one that a killed supervisor left. Raises Failure if it does not start."""
        self._settle()  # a process that was killed or is stopping may have children that have not ended yet
        lock = locks.hold(self.lock)
        if not lock:
            return
        with lock:
            # a killed process left it: the pid may be another program's now
            self.pid_file.unlink(missing_ok=True)
            self.launch(lock)
        self._settle()
        if not self.alive():
            raise Failure(f"{self.name} did not start; {self.hint}")

    def stop(self) -> None:
        """Send the stop signal, and wait for the end of the last process. Raises Failure after a minute."""
        until(lambda: not self.alive() or self._told(), f"the pid of {self.name}; {self.hint}")
        until(lambda: not self.alive(), f"{self.name} to stop; {self.hint}")

    def _settle(self) -> None:
        """Wait until the process answers, or none is left."""
        until(lambda: not self.alive() or self.answers(), f"{self.name} to answer; {self.hint}")

    def _told(self) -> bool:
        """Send the stop signal, and return whether that was possible."""
        with suppress(
            OSError, ValueError, IndexError
        ):  # the process has not written its pid yet, or has just ended
            os.kill(self.pid, self.stop_signal)
            return True
        return False


class SocketServer(Daemon):
    """A daemon that listens on a unix socket, and that runs as the account of account.py."""

    socket_name: str

    def __init__(self, directory: Path, sockets: Path) -> None:
        super().__init__(directory)
        self.directory = directory
        self.sockets = sockets

    def answers(self) -> bool:
        with closing(socket.socket(socket.AF_UNIX)) as client, suppress(OSError):
            client.connect(str(self.sockets / self.socket_name))
            return True
        return False

    def runs_by_hand(self) -> bool:
        """Tell whether the server runs without its lock, since a user restarted it, say.

        A server that runs by hand is used, but never started or stopped.
        """
        return not self.alive() and self.answers()

    def start(self) -> None:
        if not self.runs_by_hand():
            super().start()

    def run(self, lock: IO[bytes], *command: str | Path, variables: Mapping[str, str] | None = None) -> None:
        """Run a command of the server, as the server's account and in a session of its own, out of Ctrl-C's reach.

        The command inherits the lock. Raises Failure if it fails.
        """
        owner = account.choose(self.directory)
        owner.own(self.sockets)
        with self.log.open("ab") as log:
            owner.own(self.log)
            done = subprocess.run(
                [*owner.prefix, *command],
                cwd="/",
                env={**os.environ, **(variables or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[lock.fileno()],
                start_new_session=True,
                check=False,
            )
        if done.returncode:
            raise Failure(f"{Path(command[0]).name} failed; {self.hint}")
