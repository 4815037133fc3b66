"""What serves, in which order, and what a start imports."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
from config import asgi
layer, names = asgi.application, []
while layer:
    names.append(type(layer).__name__)
    layer = getattr(layer, "application", None)
print(*names)
"""
OUTER = "Lifespan Telemetry Probes AllowedHosts Head"


def run(program: str, **variables: str) -> str:
    printed = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parents[2],
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    return printed.stdout.strip()


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, f"{OUTER} PageCache LeanASGIHandler"),
        ({"ASGI_HANDLER": "lean", "PAGE_CACHE": "l2"}, f"{OUTER} PageCache LeanASGIHandler"),
        ({"ASGI_HANDLER": "stock", "PAGE_CACHE": "off"}, f"{OUTER} StockASGIHandler"),
    ],
)
def test_layers(environment: dict[str, str], expected: str) -> None:
    assert run(PROGRAM, **environment) == expected


INSTRUMENTS = """
import sys
sys.modules |= dict.fromkeys({absent})
from config import asgi
from django.conf import settings
handler = asgi.application
while hasattr(handler, "application"):
    handler = handler.application
names = ["django.contrib.staticfiles", "silk", "ops.profiling", "debug_toolbar"]
print(type(handler).__name__, *settings.MIDDLEWARE, *[name for name in names if sys.modules.get(name)])
"""
BOTH = ["silk", "debug_toolbar"]
SILK = "ops.profiling.SilkMiddleware django.contrib.staticfiles silk ops.profiling"
TOOLBAR = "debug_toolbar.middleware.DebugToolbarMiddleware django.contrib.staticfiles debug_toolbar"


@pytest.mark.parametrize(
    ("absent", "variables", "expected"),
    [
        ([], {}, "LeanASGIHandler"),
        (BOTH, {}, "LeanASGIHandler"),
        (BOTH, {"DEBUG": "true"}, "LeanASGIHandler"),
        (["silk"], {"DEBUG": "true"}, f"LeanASGIHandler {TOOLBAR}"),
        (["debug_toolbar"], {"PROFILE": "silk"}, f"StockASGIHandler {SILK}"),
    ],
)
def test_instruments_are_imported_where_they_are_on(
    absent: list[str], variables: dict[str, str], expected: str
) -> None:
    assert run(INSTRUMENTS.format(absent=absent), ASGI_HANDLER="", **variables) == expected
