"""What serves, and in which order."""

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


OUTER = "Lifespan AllowedHosts Head"


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, f"{OUTER} PageCache LeanASGIHandler"),
        ({"ASGI_HANDLER": "lean", "PAGE_CACHE": "l2"}, f"{OUTER} PageCache LeanASGIHandler"),
        ({"ASGI_HANDLER": "stock", "PAGE_CACHE": "off"}, f"{OUTER} StockASGIHandler"),
    ],
)
def test_layers(environment: dict[str, str], expected: str) -> None:
    printed = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=Path(__file__).parents[2],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert printed.stdout.strip() == expected
