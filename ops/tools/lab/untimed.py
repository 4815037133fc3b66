"""The service without its telemetry, to measure its cost: `gunicorn ops.tools.lab.untimed:application`."""

from importlib import import_module
from typing import Any

from ops.asgi.telemetry import Telemetry

application: Any = import_module("config.asgi").application  # by name: nothing here depends on config
around = application
while not isinstance(around.application, Telemetry):  # an AttributeError, if there is none
    around = around.application
around.application = around.application.application
