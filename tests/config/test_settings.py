"""A bad environment stops every way to start the service, with one line and no secret in it."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from django.conf import settings

ROOT = Path(__file__).parents[2]
GOOD = {
    "DATABASE_URL": "postgresql://u:s3cret@localhost:1/d",
    "REDIS_URL": "redis://:s3cret@localhost:1/0",
    "SECRET_KEY": "s3cret-" + "0123456789abcdef" * 4,
    "ALLOWED_HOSTS": "localhost",
}
CHECK = ("manage.py", "check", "--deploy", "--fail-level", "WARNING")
GUNICORN = ("-m", "gunicorn", "config.asgi:application")
PYTEST = ("-m", "pytest", "tests/config")


def start(*command: str, **changes: str) -> subprocess.CompletedProcess[str]:
    inherited = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")}
    return subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env=inherited | GOOD | changes,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_deployment_checks_are_clean() -> None:
    checked = start(*CHECK)
    assert (checked.returncode, checked.stderr) == (0, "")


def test_development_needs_only_the_two_servers() -> None:
    checked = start("manage.py", "check", DEBUG="1", SECRET_KEY="", ALLOWED_HOSTS="")
    assert (checked.returncode, checked.stderr) == (0, "")


@pytest.mark.parametrize("command", [CHECK, GUNICORN, PYTEST], ids=["manage.py", "gunicorn", "pytest"])
@pytest.mark.parametrize("change", [{"SECRET_KEY": ""}, {"DATABASE_URL": "mysql://u:s3cret@h/d"}], ids=str)
def test_every_entry_point_stops_with_one_line(command: tuple[str, ...], change: dict[str, str]) -> None:
    stopped = start(*command, **change)
    assert stopped.returncode == 1
    assert stopped.stdout == ""
    (line,) = stopped.stderr.splitlines()
    assert line.startswith(f"{next(iter(change))} ")
    assert "s3cret" not in line


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("REDIS_URL", ""),
        ("REDIS_URL", "http://:s3cret@h"),
        ("SECRET_KEY", "s3cret"),
        ("ALLOWED_HOSTS", ""),
        ("ALLOWED_HOSTS", "https://localhost"),
        ("DEBUG", "perhaps"),
        ("DATABASE_POOLER", "transaction"),
        ("PORT", "0"),
        ("WEB_CONCURRENCY", "many"),
        ("ASGI_HANDLER", "fast"),
        ("LOG_LEVEL", "loud"),
        ("LOG_FORMAT", "xml"),
        ("ACCESS_LOG", "2"),
        ("METRICS_PORT", "65536"),
        ("METRICS_HOST", "http://0.0.0.0"),
        ("DRAIN_SECONDS", "-1"),
        ("REVISION", "a b"),
    ],
)
def test_every_variable_is_checked(name: str, value: str) -> None:
    stopped = start("manage.py", "check", **{name: value})
    assert stopped.returncode == 1
    (line,) = stopped.stderr.splitlines()
    assert line.startswith(f"{name} ")
    assert "s3cret" not in line


def test_the_version_is_the_projects() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == settings.VERSION
