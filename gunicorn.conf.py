"""How gunicorn runs the service. It reads this file by itself from the directory it starts in.

Importing the settings checks the whole environment before anything starts, in the arbiter: a bad value would
otherwise stop one worker after another.
"""

import gc
from pathlib import Path
from typing import Any

from config import settings
from ops.instruments.arbiter import supervisor
from ops.postgres import sizes

wsgi_app = "config.asgi:application"
bind = f"0.0.0.0:{settings.PORT}"
workers = settings.WEB_CONCURRENCY
worker_class = "ops.asgi.worker.Worker"

# One import for all workers: five take 88 MB instead of 200 and are up in 0.6 s instead of 1.3 (2 cores), and
# one that dies is replaced in milliseconds. A new release needs a new arbiter: SIGHUP does not import again.
# Nothing may connect or start a thread at import; the lifespan's startup is the place for that.
preload_app = True

timeout = 20  # seconds without a sign of life until a blocked worker is killed; no request takes 10 ms of CPU
# Seconds to finish requests on a stop, after the drain. Kubernetes kills after 30 in all, unless told otherwise.
graceful_timeout = settings.DRAIN_SECONDS + 25
keepalive = 65  # seconds; longer than the 60 that nginx and AWS's load balancer keep an idle connection
max_requests = 0  # recycling a worker that runs an event loop cuts its other connections

# The sign of life is a file's timestamp: on a disk the write can block for seconds. macOS has no /dev/shm.
worker_tmp_dir = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108  gunicorn uses mkstemp there
control_socket_disable = True  # nobody uses it, and it needs a writable home

loglevel = settings.LOG_LEVEL.lower()
logconfig_dict = settings.LOGGING

on_starting = supervisor.start


def on_exit(server: object) -> None:
    supervisor.stop()


def child_exit(server: object, worker: object) -> None:
    supervisor.bury(worker)


def post_fork(server: object, worker: Any) -> None:
    worker.drain_seconds = settings.DRAIN_SECONDS
    supervisor.after_fork(worker)


def pre_fork(server: object, worker: object) -> None:
    """Leave what is imported to the arbiter's pages: a collection writes into every object that it looks at.

    A worker that has served requests then has 29 MB of its own instead of 39.
    """
    supervisor.before_fork(server, worker)
    gc.freeze()


def post_worker_init(worker: Any) -> None:
    """Hold the pools against Postgres's connections, once, in the log: the first worker asks for all."""
    if worker.age == 1:
        sizes.report()
