"""Which handler serves."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = "from config import asgi; print(type(asgi.handler).__name__)"


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [("", "LeanASGIHandler"), ("lean", "LeanASGIHandler"), ("stock", "StockASGIHandler")],
)
def test_handler(chosen: str, expected: str) -> None:
    printed = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=Path(__file__).parents[2],
        env=os.environ | {"ASGI_HANDLER": chosen},
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert printed.stdout.strip() == expected
