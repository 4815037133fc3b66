"""The part of gunicorn's arbiter in the metrics: gunicorn.conf.py calls `supervisor` from gunicorn's hooks.

It gives each worker its slot (the name of its metrics files), counts the ends of workers, and starts the exporter.
The exporter is a process of its own, since the arbiter forks and may have no threads.

| a worker's end | reason |
| --- | --- |
| it had shut down in order, after a signal | `stopped` |
| the same, because it exceeded its memory limit (ops/gunicorn/outgrown.py) | `memory` |
| gunicorn killed it, since it gave no sign of life | `timeout` |
| anything else, such as a signal or an exit code, which gunicorn logs | `died` |
"""

import logging
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from mmap import mmap
from pathlib import Path
from typing import Any

import django
from django.conf import settings
from prometheus_client import REGISTRY
from prometheus_client.multiprocess import mark_process_dead

from ops.machine import tmpfs
from ops.telemetry.metrics import Registry
from ops.telemetry.recorder import DIRECTORY, SLOT
from ops.telemetry.store import Store

logger = logging.getLogger(__name__)

WORKER_FILES_BYTES = 1024 * 1024  # bytes that a worker's files take
OWN = Registry(REGISTRY)  # metrics of the arbiter itself
REASONS = ("memory", "stopped", "timeout", "died")
EXITS = OWN.counter("gunicorn_worker_exits_total", "Workers that ended.", "reason")
BUILD = OWN.gauge("build_info", "What runs here.", "version", "revision", "python", "django", over="max")
# The shell command that starts the exporter, again five seconds after each failure. When the pipe from the arbiter
# closes, the exporter ends in order, and so does the shell. Ctrl-C reaches both, but only the arbiter acts on it.
EXPORT = 'trap "" INT; until "$0" -m ops.gunicorn.exporter $$ || ! kill -0 $PPID; do sleep 5; done'
EXPORTER_STOP_SECONDS = 2.0


class Supervisor:
    """Acts on gunicorn's hooks. If METRICS_PORT is 0, it keeps no metrics."""

    _store: Store | None = None
    _exporter: "subprocess.Popen[bytes] | None" = None

    def start(self) -> None:
        """From `on_starting`: make the directory of the metrics. If that fails, log one line, and keep no metrics."""
        if not settings.METRICS_PORT:
            return
        try:
            if named := os.environ.get(DIRECTORY):
                self._directory, self._temporary = Path(named), False
                self._directory.mkdir(parents=True, exist_ok=True)
            else:
                memory = tmpfs.directory(room=(settings.WEB_CONCURRENCY + 1) * WORKER_FILES_BYTES)
                self._directory = Path(tempfile.mkdtemp(prefix=f"{settings.NAME}-metrics-", dir=memory))
                self._temporary = True
            if "GUNICORN_PID" not in os.environ:  # otherwise, an old release still uses these files
                for left in self._directory.glob("*.db"):
                    left.unlink()
            self._store = Store(self._directory, f"{os.getpid()}-arbiter")
            release = settings.VERSION, settings.REVISION
            BUILD.labels(*release, platform.python_version(), django.__version__).value = 1
            for reason in REASONS:  # counters that begin at 0, or Prometheus would not see the first ends
                EXITS.labels(reason)
            self._store.write(OWN.metrics)
        except OSError as error:
            self._store = None
            logger.error("No metrics: %s", error)  # noqa: TRY400
            return
        os.environ[DIRECTORY] = str(self._directory)

    def export(self) -> None:
        """From `when_ready`: start the exporter, which ends when the pipe to its standard input closes."""
        if self._store:
            command = ["/bin/sh", "-c", EXPORT, sys.executable]
            try:
                self._exporter = subprocess.Popen(command, stdin=subprocess.PIPE)  # noqa: S603  our own
            except OSError as error:
                logger.error("The exporter of the metrics cannot be started: %s", error)  # noqa: TRY400

    def before_fork(self, server: Any, worker: Any) -> None:
        """From `pre_fork`: give the worker the first free slot, and a byte that it shares with the arbiter.

        A new release that runs beside the old one (SIGUSR2) has an arbiter and slots of its own.
        """
        taken = {other.slot for other in server.WORKERS.values()}
        slots = (f"{os.getpid()}-{number}" for number in range(len(taken) + 1))
        worker.slot = next(slot for slot in slots if slot not in taken)
        worker.stopped = mmap(-1, 1)

    def after_fork(self, worker: Any) -> None:
        """From `post_fork`, in the worker: pass the slot on, and close the worker's copy of the exporter's pipe."""
        if self._store:
            os.environ[SLOT] = worker.slot
            self._close_pipe()

    def count_exit(self, worker: Any) -> None:
        """From `child_exit`: count the worker's end. Its gauges go, its counters stay."""
        if self._store:
            stopped = "memory" if worker.outgrown[0] else "stopped"
            reason = "timeout" if worker.aborted else stopped if worker.stopped[0] else "died"
            EXITS.labels(reason).value += 1
            with suppress(OSError):  # an error would end the arbiter
                self._store.write(OWN.metrics)
            mark_process_dead(worker.slot, str(self._directory))
        worker.stopped.close()

    def stop(self) -> None:
        """From `on_exit`: end the exporter, and remove a temporary directory."""
        if self._exporter:
            self._close_pipe()
            try:
                self._exporter.wait(EXPORTER_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._exporter.kill()  # on Linux, the exporter dies with its parent, the shell of EXPORT
                self._exporter.wait()
        if self._store and self._temporary:
            shutil.rmtree(self._directory, ignore_errors=True)

    def _close_pipe(self) -> None:
        if self._exporter and self._exporter.stdin:
            self._exporter.stdin.close()


supervisor = Supervisor()
