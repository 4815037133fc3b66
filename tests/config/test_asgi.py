"""Which handler serves, and what a start imports."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = "from config import asgi; print(type(asgi.handler).__name__)"


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
    ("chosen", "expected"),
    [("", "LeanASGIHandler"), ("lean", "LeanASGIHandler"), ("stock", "StockASGIHandler")],
)
def test_handler(chosen: str, expected: str) -> None:
    assert run(PROGRAM, ASGI_HANDLER=chosen) == expected


INSTRUMENTS = """
import sys
sys.modules |= dict.fromkeys({absent})
from config import asgi
from django.conf import settings
handler = getattr(asgi.handler, "application", asgi.handler)  # below the static files
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
