"""How gunicorn runs the service. Gunicorn reads this file from the directory that it starts in.

Importing the settings checks the whole environment before anything starts, in the arbiter: a bad value would
otherwise stop one worker after another.
"""

import gc
from typing import Any

from config import settings
from ops.gunicorn import outgrown, sockets
from ops.gunicorn.arbiter import supervisor
from ops.gunicorn.handover import HANDSHAKE_SECONDS
from ops.machine import addresses, concurrency, files, tmpfs
from ops.postgres import connection_budget

wsgi_app = "config.asgi:application"
bind = [addresses.written(host, settings.PORT) for host in addresses.both("0.0.0.0")]  # noqa: S104  its purpose
workers = settings.WEB_CONCURRENCY
worker_class = (
    "ops.gunicorn.worker.Worker" if settings.RUNTIME == "lean" else "ops.gunicorn.worker.StockWorker"
)

# One import for all workers: five workers take 88 MB instead of 200 and are up in 0.6 s instead of 1.3 (2 cores), and
# a worker that dies is replaced in milliseconds. A new release needs a new arbiter: SIGHUP does not import again.
# Nothing may connect or start a thread at import; the lifespan's startup is the place for that.
preload_app = True

# Seconds without a sign of life until a blocked worker is killed; no request takes 10 ms of CPU. With DEBUG there is
# no limit: a debugger's prompt may block a worker for any time.
timeout = 0 if settings.DEBUG else 20
# Seconds to finish requests on a stop, after the drain. Kubernetes kills after 30 in all, unless told otherwise.
graceful_timeout = settings.DRAIN_SECONDS + 25
keepalive = settings.KEEPALIVE
max_requests = 0  # a worker is replaced for its memory (WORKER_MEMORY_LIMIT), not after so many requests
# The sign of life is a file's timestamp: on a disk, writing it can block for seconds.
worker_tmp_dir = tmpfs.directory()
control_socket_disable = True  # unused, and it needs a writable home

loglevel = settings.LOG_LEVEL.lower()
logconfig_dict = settings.LOGGING


def on_starting(server: Any) -> None:
    """Prepare the arbiter, before gunicorn listens and forks."""
    files.raise_limit()
    sockets.install(reuse_port=settings.REUSE_PORT)
    concurrency.report(settings.WEB_CONCURRENCY)
    supervisor.start()


def when_ready(server: object) -> None:
    supervisor.export()


def on_exit(server: object) -> None:
    supervisor.stop()


def child_exit(server: object, worker: Any) -> None:
    supervisor.count_exit(worker)
    worker.outgrown.close()


def post_fork(server: object, worker: Any) -> None:
    least = HANDSHAKE_SECONDS if settings.REUSE_PORT else 0
    worker.drain_seconds = max(settings.DRAIN_SECONDS, least)
    worker.memory_limit = settings.WORKER_MEMORY_LIMIT * 1024 * 1024
    supervisor.after_fork(worker)


def pre_fork(server: Any, worker: Any) -> None:
    """Prepare a fork, and freeze the imported objects: a garbage collection writes into all that are not frozen.

    Workers then keep sharing the arbiter's pages: after some requests, one has 29 MB of its own instead of 39.
    """
    supervisor.before_fork(server, worker)
    outgrown.prepare(worker)
    outgrown.make_room(server)
    gc.freeze()


def post_worker_init(worker: Any) -> None:
    """Have the first worker log whether the connections of all workers fit into Postgres."""
    if worker.age == 1:
        connection_budget.report()
