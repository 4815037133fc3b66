"""The service without its telemetry, to measure what that costs: `gunicorn ops.lab.untimed:application`."""

from importlib import import_module
from typing import Any

from ops.asgi import wire
from ops.asgi.telemetry import Telemetry
from ops.instruments import request_id, requests

application: Any = import_module("config.asgi").application  # by name: nothing here depends on config
telemetry = application.application
if not isinstance(telemetry, Telemetry):
    raise TypeError("telemetry is not the outermost layer any more")
application.application = telemetry.application


def nothing(*_: object) -> bytes:
    return b""


for owner, name in ((wire, "hit_block"), (request_id, "of"), (requests, "record")):
    setattr(owner, name, nothing)
