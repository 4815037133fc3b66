"""What a database session may do, asked of the real server: requests are bounded, commands are not."""

import subprocess
import sys
from pathlib import Path

import pytest

SHOW = """
from django.db import connection
with connection.cursor() as cursor:
    names = "statement_timeout", "idle_in_transaction_session_timeout", "lock_timeout", "TimeZone"
    print([cursor.execute(f"SHOW {name}").fetchone()[0] for name in names])
connection.close_pool()
"""
PROGRAMS = {
    "serving": [sys.executable, "-c", f"import config.asgi\n{SHOW}"],
    "command": [sys.executable, "manage.py", "shell", "--no-imports", "-c", SHOW],
}


@pytest.mark.parametrize(
    ("program", "expected"),
    [("serving", ["1s", "5s", "500ms", "UTC"]), ("command", ["0", "0", "500ms", "UTC"])],
)
def test_session_limits(program: str, expected: list[str]) -> None:
    root = Path(__file__).parents[3]
    shown = subprocess.run(
        PROGRAMS[program], cwd=root, capture_output=True, text=True, timeout=30, check=True
    )
    assert shown.stdout == f"{expected}\n"
