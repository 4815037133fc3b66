"""The service's worker without the wire: each hit of the page cache goes through ASGI, for the contender sub10-l1."""

from typing import Any, ClassVar

from ops.gunicorn import worker


class Worker(worker.Worker):
    CONFIG_KWARGS: ClassVar[dict[str, Any]] = {**worker.Worker.CONFIG_KWARGS, "http": "httptools"}
