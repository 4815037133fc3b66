"""A Valkey that a test may harm."""

import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from ops.tools.embedded.paths import valkey_program
from tests.service import PATIENCE


class Valkey:
    """In memory only, on a unix socket of its own. `client` is the test's own way to it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.socket = directory / "valkey.sock"  # /tmp keeps it short enough for a socket's address
        once = Retry(NoBackoff(), 0)
        self.client = redis.Redis(unix_socket_path=str(self.socket), socket_timeout=PATIENCE, retry=once)
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def is_well(self) -> bool:
        """Whether it is as it starts."""
        try:
            found = self.client.info()
        except redis.RedisError:
            return False
        mine = self.process is not None and found["process_id"] == self.process.pid
        return mine and found["role"] == "master" and not found["maxmemory"] and not found["loading"]

    def start(self, *options: str, wait: bool = True) -> None:
        """Start it; returns once it answers, unless it is not to be waited for."""
        own = ["--port", "0", "--unixsocket", str(self.socket), "--dir", str(self.directory)]
        log = self.directory / "valkey.log"
        self.process = subprocess.Popen(
            [valkey_program(), *own, "--save", "", "--logfile", str(log), *options]
        )
        deadline = time.monotonic() + PATIENCE
        while wait and not self._answers():
            assert self.is_running, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.005)

    def stop(self, *, keep: bool = False) -> None:
        """At once, as SIGKILL or a power cut does. Its file goes, too, unless it is kept."""
        if self.process:
            self.process.kill()
            self.process.wait(PATIENCE)
        self.client.connection_pool.disconnect()
        if not keep:
            (self.directory / "dump.rdb").unlink(missing_ok=True)

    def freeze(self) -> None:
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self.process
        self.process.send_signal(number)

    def _answers(self) -> bool:
        try:
            return bool(self.client.ping())
        except redis.RedisError:
            return False


@contextmanager
def private_valkey() -> Iterator[Valkey]:
    """One that does not run yet; it is gone when the block ends."""
    directory = Path(tempfile.mkdtemp(prefix="valkey-"))
    valkey = Valkey(directory)
    try:
        yield valkey
    finally:
        valkey.stop()
        shutil.rmtree(directory)
