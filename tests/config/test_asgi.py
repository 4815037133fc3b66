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
OUTERMOST = "Lifespan SecurityHeaders Telemetry"
CHECKED = "Probes AllowedHosts Head"
OUTER = f"{OUTERMOST} {CHECKED}"
INNER = "PageCache Admission BodyLimit LeanASGIHandler"


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
        ({}, f"{OUTER} {INNER}"),
        ({"RUNTIME": "lean", "PAGE_CACHE": "l2"}, f"{OUTER} {INNER}"),
        (
            {"CORS_ORIGINS": "*", "ROOT_PATH": "/shop"},
            f"{OUTERMOST} RootPath Probes Cors AllowedHosts Head {INNER}",
        ),
        (
            {"TRUSTED_PROXIES": "::1"},
            f"Lifespan ForwardedProto SecurityHeaders Telemetry RootPath Probes AllowedHosts Head {INNER}",
        ),
        ({"RATE_LIMIT_READ": "9/s"}, f"{OUTER} RateLimits {INNER}"),
        (
            {"RUNTIME": "stock", "PAGE_CACHE": "off"},
            f"Lifespan TwoMessages SecurityHeaders Telemetry {CHECKED} Admission BodyLimit StockASGIHandler",
        ),
    ],
)
def test_layers(environment: dict[str, str], expected: str) -> None:
    assert run(PROGRAM, **environment) == expected


def test_the_openapi_document_is_made_before_the_first_request() -> None:
    program = """
from config import asgi
from api.ninja import APIS
made = [api._document.cache_info().misses for api in APIS]
print(made, APIS[0].get_openapi_schema() is APIS[0].get_openapi_schema(), APIS[0]._document.cache_info().misses)
"""
    assert run(program) == "[1] True 1"


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
    assert run(INSTRUMENTS.format(absent=absent), RUNTIME="", **variables) == expected
