"""`manage.py runserver`: Django's, with its checks and its reloader, on the server of a worker: ASGI on uvicorn."""

import socket
from typing import Any

import uvicorn
from django.conf import settings
from django.core.management.commands import runserver
from django.utils.module_loading import import_string

from ops.asgi.types import Application
from ops.gunicorn.worker import StockWorker, Worker


class Server:
    """Django's interface of a WSGI server. The reloader runs it in a thread, where uvicorn leaves signals alone."""

    def __init__(self, address: tuple[str, int], _handler: object, *, ipv6: bool = False) -> None:
        family = socket.AF_INET6 if ipv6 else socket.AF_INET
        self.socket = socket.create_server(address, family=family)
        self.server_port = self.socket.getsockname()[1]

    def set_app(self, application: Application) -> None:
        worker = Worker if settings.RUNTIME == "lean" else StockWorker
        self.config = uvicorn.Config(application, **worker.CONFIG_KWARGS | {"log_config": None})

    def serve_forever(self) -> None:
        server = uvicorn.Server(self.config)
        server.run([self.socket])
        if not server.started:
            raise OSError("The application did not start.")  # which Django prints, and ends


class Command(runserver.Command):
    default_port = str(settings.PORT)
    server_cls: Any = Server
    addr: str
    _raw_ipv6: bool

    def on_bind(self, server_port: int) -> None:
        host = f"[{self.addr}]" if self._raw_ipv6 else self.addr
        self.stdout.write(
            f"Starting ASGI development server at http://{host}:{server_port}/ (Ctrl-C stops it)"
        )

    def get_handler(self, *_args: Any, **_options: Any) -> Any:
        return import_string(settings.ASGI_APPLICATION)
