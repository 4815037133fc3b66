"""Checks of the server: ASGI, its workers, their number."""

import runpy
from contextlib import suppress
from importlib.util import find_spec
from typing import Any

from django.conf import settings
from django.utils.module_loading import import_string
from gunicorn.config import Config, get_default_config_file  # type: ignore[import-untyped]
from gunicorn.workers.gasgi import ASGIWorker  # type: ignore[import-untyped]
from uvicorn_worker import UvicornWorker  # type: ignore[import-untyped]

from ops.asgi.hits import undeclared_layer
from ops.checks.messages import Messages, warning
from ops.machine import cpus


def check_asgi(**_kwargs: Any) -> Messages:
    """Check that the settings name an ASGI application and no WSGI one. Its module is looked for, not loaded."""
    asgi, wsgi = getattr(settings, "ASGI_APPLICATION", None), settings.WSGI_APPLICATION
    with suppress(ImportError, ValueError):  # a parent package may not be importable
        if wsgi is None and asgi and find_spec(asgi.rpartition(".")[0]):
            return []
    return [
        warning(
            "001",
            f"ASGI_APPLICATION is {asgi!r} and WSGI_APPLICATION is {wsgi!r}.",
            "Name an ASGI application that exists and no WSGI one: under WSGI a worker serves one request at a "
            "time, and async views run in a thread each.",
        )
    ]


def check_worker_class(**_kwargs: Any) -> Messages:
    """Check that gunicorn's workers run an event loop."""
    worker = _gunicorn().worker_class
    if issubclass(worker, (UvicornWorker, ASGIWorker)):
        return []
    return [
        warning(
            "002",
            f"gunicorn's worker_class is {worker.__module__}.{worker.__qualname__}, which is not an ASGI worker.",
            'Set worker_class = "ops.gunicorn.worker.Worker" in gunicorn.conf.py.',
        )
    ]


def check_recycling(**_kwargs: Any) -> Messages:
    """Check that no worker is replaced after a number of requests."""
    requests = _gunicorn().max_requests
    if requests == 0:
        return []
    return [
        warning(
            "003",
            f"gunicorn's max_requests is {requests}: a worker that ends cuts its other connections.",
            "Set max_requests = 0 in gunicorn.conf.py, and look for the leak that it was to hide.",
        )
    ]


def check_worker_count(**_kwargs: Any) -> Messages:
    """Check that there are no more workers than 2 x cores + 1."""
    workers, cores = settings.WEB_CONCURRENCY, cpus.available()
    most = int(2 * cores) + 1
    if workers <= most:
        return []
    return [
        warning(
            "004",
            f"WEB_CONCURRENCY is {workers}, with {cores:g} cores: workers take turns on them.",
            f"Set it to 2 x cores + 1 = {most} at most. An event loop does not wait: fewer can have a better p99.",
        )
    ]


def check_layers(**_kwargs: Any) -> Messages:
    """Check that each layer in front of the page cache declares its effect on a hit. This loads the application."""
    if settings.PAGE_CACHE != "on" or settings.RUNTIME != "lean" or check_asgi():
        return []
    layer = undeclared_layer(import_string(settings.ASGI_APPLICATION))
    if not layer:
        return []
    return [
        warning(
            "070",
            f"The layer {layer} of {settings.ASGI_APPLICATION} does not say what it does to a cached answer, so that "
            "none is written without calling all layers: hits take half as long again.",
            "Give it `admits` (and `fields`, if it adds header fields), and name what it wraps `application`: "
            "ops/asgi/hits.py has an example. Around what follows the cache, it needs neither.",
        )
    ]


def _gunicorn() -> Any:
    """Return gunicorn's settings as gunicorn.conf.py of the current directory has them.

    Gunicorn's command line and GUNICORN_CMD_ARGS override the file, and are not seen here. The result has no type,
    since Config makes its attributes at run time.
    """
    config, file = Config(), get_default_config_file()
    for name, value in (runpy.run_path(file) if file else {}).items():
        if name in config.settings:
            config.set(name, value)
    return config
