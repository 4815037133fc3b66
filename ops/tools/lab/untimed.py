"""The service without telemetry, to measure the cost of telemetry: `gunicorn ops.tools.lab.untimed:application`."""

from importlib import import_module
from typing import Any

from ops.asgi.telemetry import Telemetry

application: Any = import_module("config.asgi").application  # by name: ops has no import statement for config
around = application
while not isinstance(around.application, Telemetry):  # raises AttributeError if no layer is Telemetry
    around = around.application
around.application = around.application.application
