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


def test_a_profiler_is_no_deployment() -> None:
    checked = start(*CHECK, PROFILE="silk")
    assert (checked.returncode, checked.stderr.count("?: (")) == (1, 1)
    assert "ops.W031" in checked.stderr


def test_a_profiler_that_is_not_installed_is_one_line() -> None:
    stopped = start("-c", "import sys; sys.modules['silk'] = None; import config.settings", PROFILE="silk")
    assert (stopped.returncode, stopped.stderr) == (
        1,
        "PROFILE is 'silk', which is not installed: pip install -r requirements/profile.txt\n",
    )


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
        ("PROFILE", "yappi"),
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


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SECRET_KEY", "development-only-and-known-to-everybody-who-can-read"),
        ("DATABASE_URL", "postgresql://u:development-only@localhost:1/d"),
    ],
)
def test_secrets_of_the_repository_serve_this_machine_only(name: str, value: str) -> None:
    """Those of compose.yaml, which has to start without a file edited."""
    published = {name: value}
    assert start(*CHECK, ALLOWED_HOSTS="localhost,127.0.0.1,[::1],api", **published).returncode == 0
    for hosts in ("localhost,api.example.com", ".example.com", "*", "192.0.2.1", "[2001:db8::1]"):
        stopped = start(*CHECK, ALLOWED_HOSTS=hosts, **published)
        assert stopped.returncode == 1
        (line,) = stopped.stderr.splitlines()
        assert line.startswith(f"{name} has a secret that everybody can read")


def test_the_version_is_the_projects() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == settings.VERSION
