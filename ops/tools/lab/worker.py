"""The service's worker without its wire cache, so that a hit goes all the way through ASGI: sub10-l1."""

from typing import Any, ClassVar

from ops.gunicorn import worker


class Worker(worker.Worker):
    CONFIG_KWARGS: ClassVar[dict[str, Any]] = {**worker.Worker.CONFIG_KWARGS, "http": "httptools"}
