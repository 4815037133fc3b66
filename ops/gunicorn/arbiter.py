"""The part of gunicorn's arbiter in the metrics: gunicorn.conf.py calls `supervisor` from gunicorn's hooks.

It gives each worker its slot, counts the ends of workers, and starts the exporter. The exporter is a process of its
own, since the arbiter forks and may have no threads.

| a worker's end | reason |
| --- | --- |
| it had shut down in order, after a signal | `stopped` |
| the same, because it exceeded its memory limit (ops/gunicorn/outgrown.py) | `memory` |
| it gave gunicorn no sign of life, which killed it | `timeout` |
| anything else: a signal, an exit code, which gunicorn logs | `died` |
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

WORKER_FILES_BYTES = 1024 * 1024  # the room that a worker's files take
OWN = Registry(REGISTRY)  # metrics of the arbiter itself
REASONS = ("memory", "stopped", "timeout", "died")
EXITS = OWN.counter("gunicorn_worker_exits_total", "Workers that ended.", "reason")
BUILD = OWN.gauge("build_info", "What runs here.", "version", "revision", "python", "django", over="max")
# Starts the exporter again five seconds after it failed. The exporter ends in order when the pipe from the arbiter
# closes, and the shell with it. Ctrl-C reaches both, and is the arbiter's to act on.
EXPORT = 'trap "" INT; until "$0" -m ops.gunicorn.exporter $$ || ! kill -0 $PPID; do sleep 5; done'
EXPORTER_STOP_SECONDS = 2.0


class Supervisor:
    """Keeps no metrics where METRICS_PORT is 0."""

    _store: Store | None = None
    _exporter: "subprocess.Popen[bytes] | None" = None

    def start(self) -> None:
        """From `on_starting`. A directory that cannot be written is one line; the service runs without metrics."""
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
            if "GUNICORN_PID" not in os.environ:  # a new release beside the old one: they are its files, too
                for left in self._directory.glob("*.db"):
                    left.unlink()
            self._store = Store(self._directory, f"{os.getpid()}-arbiter")
            release = settings.VERSION, settings.REVISION
            BUILD.labels(*release, platform.python_version(), django.__version__).value = 1
            for reason in REASONS:  # from 0 on, or Prometheus would not see the first ends
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
        """From `pre_fork`: the worker gets the first slot that no live one has, and a byte to share with the arbiter.

        A new release that runs beside the old one (SIGUSR2) has an arbiter and slots of its own.
        """
        taken = {other.slot for other in server.WORKERS.values()}
        slots = (f"{os.getpid()}-{number}" for number in range(len(taken) + 1))
        worker.slot = next(slot for slot in slots if slot not in taken)
        worker.stopped = mmap(-1, 1)

    def after_fork(self, worker: Any) -> None:
        """From `post_fork`, in the worker: leave the arbiter's end of the exporter's pipe to the arbiter."""
        if self._store:
            os.environ[SLOT] = worker.slot
            self._close_pipe()

    def count_exit(self, worker: Any) -> None:
        """From `child_exit`: the worker's gauges go, its counters stay."""
        if self._store:
            stopped = "memory" if worker.outgrown[0] else "stopped"
            reason = "timeout" if worker.aborted else stopped if worker.stopped[0] else "died"
            EXITS.labels(reason).value += 1
            with suppress(OSError):  # an error would end the arbiter
                self._store.write(OWN.metrics)
            mark_process_dead(worker.slot, str(self._directory))
        worker.stopped.close()

    def stop(self) -> None:
        """From `on_exit`."""
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
