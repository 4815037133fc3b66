"""What gunicorn's arbiter does for the instruments: gunicorn.conf.py calls `supervisor` from gunicorn's hooks.

It gives each worker its slot, counts workers and why they ended, and keeps the exporter alive. The exporter is a
process of its own, since the arbiter forks and may have no threads.
"""

import logging
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import django
import gunicorn.arbiter  # type: ignore[import-untyped]
from django.conf import settings
from prometheus_client.multiprocess import mark_process_dead

from ops.instruments.metrics import Registry
from ops.instruments.recorder import DIRECTORY, SLOT
from ops.instruments.store import Store

logger = logging.getLogger(__name__)

RESTART = 5.0  # seconds between two starts of the exporter, should it end again and again
TMPFS = "/dev/shm"  # noqa: S108  mkdtemp makes a directory of its own there
OWN = Registry()  # metrics of the arbiter itself
WORKERS = OWN.gauge("gunicorn_workers", "Workers that run.").labels()
EXITS = OWN.counter("gunicorn_worker_exits_total", "Workers that ended.", "reason")
BUILD = OWN.gauge("build_info", "What runs here.", "version", "revision", "python", "django", over="max")
STOPS = {signal.SIGTERM, signal.SIGQUIT, signal.SIGINT}  # uvicorn ends by the signal that told it to stop


class Supervisor:
    """Does nothing where METRICS_PORT is 0."""

    _store: Store | None = None
    _exporter: "subprocess.Popen[bytes] | None" = None
    _started = 0.0

    def start(self, server: Any) -> None:
        """From `on_starting`. A directory that cannot be written is one line; the service runs without metrics."""
        if not settings.METRICS_PORT:
            return
        try:
            self._directory, self._temporary = _directory()
            if "GUNICORN_PID" not in os.environ:  # a new release beside the old one: those are its files, too
                for left in self._directory.glob("*.db"):
                    left.unlink()
            self._store = Store(self._directory, f"{os.getpid()}-arbiter")
            BUILD.labels(
                settings.VERSION, settings.REVISION, platform.python_version(), django.__version__
            ).value = 1
        except OSError as error:
            logger.error("No metrics: %s", error)  # noqa: TRY400
            return
        os.environ[DIRECTORY] = str(self._directory)
        server.__class__ = Arbiter

    def look_after(self, workers: int) -> None:
        """At least once a second: start the exporter if it does not run, and say how many workers do."""
        WORKERS.value = workers
        self._write()
        if self._exporter is None:
            self._export()
        elif self._exporter.poll() is not None and time.monotonic() - self._started > RESTART:
            logger.warning("The exporter of the metrics ended, and starts again")
            self._close_pipe()
            self._export()

    def before_fork(self, server: Any, worker: Any) -> None:
        """From `pre_fork`: the worker gets the first slot that no live one has.

        A new release that runs beside the old one (SIGUSR2) has an arbiter and slots of its own.
        """
        taken = {other.slot for other in server.WORKERS.values()}
        slots = (f"{os.getpid()}-{number}" for number in range(len(taken) + 1))
        worker.slot = next(slot for slot in slots if slot not in taken)

    def after_fork(self, worker: Any) -> None:
        """From `post_fork`, in the worker: leave the arbiter's end of the exporter's pipe to the arbiter."""
        if self._store:
            os.environ[SLOT] = worker.slot
            self._close_pipe()

    def bury(self, worker: Any) -> None:
        """From `child_exit`: what the worker had of gauges is gone, what it counted stays."""
        if self._store:
            EXITS.labels(worker.ended).value += 1
            self._write()
            mark_process_dead(worker.slot, str(self._directory))

    def stop(self) -> None:
        """From `on_exit`."""
        if self._exporter:
            self._exporter.kill()
            self._exporter.wait()
            self._close_pipe()
        if self._store and self._temporary:
            shutil.rmtree(self._directory, ignore_errors=True)

    def _export(self) -> None:
        self._started = time.monotonic()
        command = [sys.executable, "-m", "ops.instruments.exporter", str(os.getpid())]
        try:
            self._exporter = subprocess.Popen(command, stdin=subprocess.PIPE)  # noqa: S603  our own
        except OSError as error:
            logger.error("The exporter of the metrics cannot be started: %s", error)  # noqa: TRY400

    def _write(self) -> None:
        """An error here would end the arbiter."""
        if self._store:
            with suppress(OSError):
                self._store.write(OWN.metrics)

    def _close_pipe(self) -> None:
        if self._exporter and self._exporter.stdin:
            self._exporter.stdin.close()


class Arbiter(gunicorn.arbiter.Arbiter):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn's, where it has no hook: for the end of a foreign child, and for why a worker ended."""

    def manage_workers(self) -> None:
        super().manage_workers()
        supervisor.look_after(len(self.WORKERS))

    def reap_workers(self) -> None:
        """Gunicorn tells nobody the status that it reaps: it is noted as waitpid returns it."""
        waitpid = os.waitpid

        def waitpid_noting(pid: int, options: int) -> tuple[int, int]:
            ended, status = waitpid(pid, options)
            if worker := self.WORKERS.get(ended):
                worker.ended = _reason(worker, status)
            return ended, status

        os.waitpid = waitpid_noting  # in this process, which has one thread, and for this call
        try:
            super().reap_workers()
        finally:
            os.waitpid = waitpid


def _reason(worker: Any, status: int) -> str:
    if worker.aborted:
        return "timeout"  # the arbiter heard no sign of life
    code = os.waitstatus_to_exitcode(status)
    if -code in STOPS or code == 0:
        return "stopped"
    return "failed" if code > 0 else "killed" if -code == signal.SIGKILL else "crashed"


def _directory() -> tuple[Path, bool]:
    """Where the files go, and whether that is a temporary directory of our own. In memory, if it can be."""
    if named := os.environ.get(DIRECTORY):
        Path(named).mkdir(parents=True, exist_ok=True)
        return Path(named), False
    memory = TMPFS if os.access(TMPFS, os.W_OK) else None
    return Path(tempfile.mkdtemp(prefix="sub10-metrics-", dir=memory)), True


supervisor = Supervisor()
