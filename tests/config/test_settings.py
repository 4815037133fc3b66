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
        ("SECRET_KEY_FALLBACKS", "s3cret"),
        ("SECRET_KEY_FALLBACKS", "s3cret-" + "0123456789abcdef" * 4 + ",s3cret"),
        ("ALLOWED_HOSTS", ""),
        ("ALLOWED_HOSTS", "https://localhost"),
        ("DEBUG", "perhaps"),
        ("DATABASE_POOLER", "transaction"),
        ("PORT", "0"),
        ("WEB_CONCURRENCY", "many"),
        ("RUNTIME", "fast"),
        ("LOG_LEVEL", "loud"),
        ("PROFILE", "yappi"),
        ("LOG_FORMAT", "xml"),
        ("ACCESS_LOG", "2"),
        ("METRICS_PORT", "65536"),
        ("METRICS_HOST", "http://0.0.0.0"),
        ("WORKER_MEMORY_LIMIT", "-1"),
        ("DRAIN_SECONDS", "-1"),
        ("KEEPALIVE", "0"),
        ("REVISION", "a b"),
        ("CORS_ORIGINS", "https://app.example.com/"),
        ("CORS_ORIGINS", "app.example.com"),
        ("ROOT_PATH", "/shop/"),
        ("TRUSTED_PROXIES", "10.0.0.0/99"),
        ("TRUSTED_PROXIES", "proxy"),
        ("SERVER_TIMING", "some"),
        ("HSTS_SECONDS", "a year"),
    ],
)
def test_every_variable_is_checked(name: str, value: str) -> None:
    stopped = start("manage.py", "check", **{name: value})
    assert stopped.returncode == 1
    (line,) = stopped.stderr.splitlines()
    assert line.startswith(f"{name} ")
    assert "s3cret" not in line


@pytest.mark.parametrize("key", ["", "s3cret"])
def test_the_key_of_server_timing(key: str) -> None:
    stopped = start("manage.py", "check", SERVER_TIMING="key", SERVER_TIMING_KEY=key)
    (line,) = stopped.stderr.splitlines()
    assert line.startswith("SERVER_TIMING_KEY ")
    assert "s3cret" not in line


@pytest.mark.parametrize("name", ["METRICS_PORT", "PORT"])
def test_a_service_link_is_ignored_in_one_line(name: str) -> None:
    """Kubernetes sets METRICS_PORT in every pod beside a service that is called metrics."""
    ask = f"import os; from config import settings as s; print(s.METRICS_PORT, s.PORT, os.getenv({name!r}))"
    found = start("-c", ask, **{name: "tcp://10.0.0.1:9100"})
    assert (found.returncode, found.stdout) == (0, "9100 8000 None\n")
    (line,) = found.stderr.splitlines()
    assert line.startswith(f"{name} is 'tcp://10.0.0.1:9100'")
    assert line.endswith("ignored")
    stopped = start("-c", ask, **{name: "10.0.0.1:9100"})
    assert (stopped.returncode, stopped.stderr.startswith(f"{name} is '10.0.0.1:9100'")) == (1, True)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SECRET_KEY", "development-only-and-known-to-everybody-who-can-read"),
        (
            "SECRET_KEY_FALLBACKS",
            "0123456789abcdef" * 4 + ",development-only-and-known-to-everybody-who-can-read",
        ),
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


@pytest.mark.parametrize("value", ["/..", "/a/../b", "/.", "shop", "/shop/", "//shop"])
def test_a_root_path_that_clients_would_not_keep(value: str) -> None:
    stopped = start("-c", "import config.settings", ROOT_PATH=value)
    assert (stopped.returncode, stopped.stderr.count("ROOT_PATH is ")) == (1, 1)
    assert start("-c", "import config.settings", ROOT_PATH="/a.b/..c").returncode == 0


def test_every_secret_may_be_in_a_file(tmp_path: Path) -> None:
    """As Docker and Kubernetes mount them; a file for each secret that the settings read."""
    secrets = {
        **{name: value for name, value in GOOD.items() if name != "ALLOWED_HOSTS"},
        "SECRET_KEY_FALLBACKS": "s3cret-" + "abcdef0123456789" * 4,
        "SERVER_TIMING_KEY": "s3cret-" + "fedcba9876543210" * 4,
    }
    for name, value in secrets.items():
        (tmp_path / name).write_text(f"{value}\n")
    files = {f"{name}_FILE": str(tmp_path / name) for name in secrets}
    ask = (
        "from config import settings as s; print(s.SECRET_KEY, *s.SECRET_KEY_FALLBACKS, s.DATABASE['PASSWORD'], "
        "s.REDIS_URL, s.SERVER_TIMING_KEY)"
    )
    empty = dict.fromkeys(secrets, "")
    found = start("-c", ask, SERVER_TIMING="key", **empty, **files)
    expected = [
        *(secrets["SECRET_KEY"], secrets["SECRET_KEY_FALLBACKS"], "s3cret"),
        *(secrets["REDIS_URL"], secrets["SERVER_TIMING_KEY"]),
    ]
    assert (found.stderr, found.stdout.split()) == ("", expected)
    stopped = start("-c", ask, **empty, **files | {"REDIS_URL_FILE": "/nothing/s3cret"})
    assert stopped.stderr == (
        "REDIS_URL cannot be read: there is no such file. It is read from the file that REDIS_URL_FILE names\n"
    )


def test_a_key_in_the_address_of_another_service_is_a_secret() -> None:
    ask = (
        "from config import settings as s; s.UPSTREAM_URLS.append('https://h/?key=s3cret-of-sixteen%21'); "
        "print(*s.LOGGING['formatters']['structured']['secrets']())"
    )
    assert {"s3cret-of-sixteen%21", "s3cret-of-sixteen!"} <= {*start("-c", ask).stdout.split()}
