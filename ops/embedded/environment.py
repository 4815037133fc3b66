"""The variables that the service is run with: what the user set, and a default for what they did not."""

import os
import secrets
import subprocess

from ops.embedded.console import Failure
from ops.embedded.paths import LOCAL, PYTHON, ROOT
from ops.embedded.servers import Servers

GREATEST_PORT = 65535
FALSE = ("", "0", "false", "no", "off")  # as config/env.py reads them


def complete(servers: Servers) -> dict[str, str]:
    """Return the environment of manage.py and gunicorn. An empty variable counts as not set."""
    defaults = {
        "SECRET_KEY": _secret_key(),
        "ALLOWED_HOSTS": "localhost,127.0.0.1,[::1]",
        "PORT": "8000",
        "LOG_FORMAT": "console",  # somebody looks on
    }
    return defaults | {name: value for name, value in os.environ.items() if value} | servers.environment


def groups() -> tuple[str, ...]:
    """Return the dependency groups of the service: PROFILE and DEBUG ask for instruments of development."""
    instrumented = os.environ.get("PROFILE") or os.environ.get("DEBUG", "").lower() not in FALSE
    return ("runtime", "embedded", "profile") if instrumented else ("runtime", "embedded")


def check(variables: dict[str, str]) -> None:
    """Fail with the line of config/settings.py about a bad variable, before any server is started for it."""
    command = [PYTHON, "-c", "import config.settings"]
    done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failure(done.stderr.strip())


def port() -> int:
    """Return PORT."""
    text = os.environ.get("PORT") or "8000"
    if not (text.isascii() and text.isdigit() and 0 < int(text) <= GREATEST_PORT):
        raise Failure(f"PORT is {text!r}, not a number from 1 to {GREATEST_PORT}")
    return int(text)


def _secret_key() -> str:
    """Return the checkout's own key, made once: sessions and cursors outlive a restart."""
    path = LOCAL / "secret_key"
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text(secrets.token_urlsafe(64))
    return path.read_text()
