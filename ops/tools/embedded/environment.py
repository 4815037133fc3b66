"""The environment variables of the service: the user's, and defaults for the missing ones."""

import os
import re
import secrets
import subprocess

from ops.tools.embedded.console import Failure
from ops.tools.embedded.paths import LOCAL, PYTHON, ROOT
from ops.tools.embedded.servers import Servers

GREATEST_PORT = 65535
FALSE = ("", "0", "false", "no", "off")  # as config/env.py reads them
# Variables that a user's shell has for other Pythons and virtual environments: they decide where modules come from
# and how code runs. Variables for debugging may stay.
FOREIGN = re.compile(
    r"PYTHON(?!ASYNCIODEBUG|BREAKPOINT|DEVMODE|DONTWRITEBYTECODE|FAULTHANDLER|TRACEMALLOC|UNBUFFERED)\w*"
    r"|__PYVENV_LAUNCHER__|VIRTUAL_ENV\w*|CONDA_\w+|PYTEST_(ADDOPTS|PLUGINS)|MYPYPATH"
    # uv's variables, except for how to reach an index (docs.astral.sh/uv/reference/environment).
    r"|UV_(?!CACHE_DIR|CONCURRENT|DEFAULT_INDEX|EXTRA_INDEX|FIND_LINKS|HTTP|INDEX|INSECURE|KEYRING|NATIVE_TLS"
    r"|NO_CACHE|NO_INDEX|OFFLINE|REQUEST|SYSTEM_CERTS)\w+"
)
LIBPQ = re.compile(r"PG[A-Z]+")  # libpq's variables, which the user's DATABASE_URL may rely on


def leave_foreign() -> None:
    """Remove variables for other programs from the environment of this process and of those that it starts.

    Python itself reads some of them before this code runs; -E and -s in the Makefile have it ignore them.
    """
    for name in [*os.environ]:
        libpq = LIBPQ.fullmatch(name) and not os.environ.get("DATABASE_URL")
        if FOREIGN.fullmatch(name) or libpq:
            del os.environ[name]
    module = os.environ.get("DJANGO_SETTINGS_MODULE", "")
    if not (ROOT / module.replace(".", "/")).with_suffix(".py").is_file():  # another project's
        os.environ.pop("DJANGO_SETTINGS_MODULE", None)


def complete(servers: Servers) -> dict[str, str]:
    """Return the environment of manage.py and gunicorn: the user's, with defaults and the addresses of `servers`.

    An empty variable counts as not set.
    """
    key = LOCAL / "secret_key"  # the checkout's own, made once: sessions and cursors outlive a restart
    if not key.exists():
        key.touch(mode=0o600)
        key.write_text(secrets.token_urlsafe(64))
    defaults = {
        "SECRET_KEY": key.read_text(),
        "ALLOWED_HOSTS": "localhost,127.0.0.1,[::1]",
        "PORT": "8000",
        "LOG_FORMAT": "console",  # for a terminal
    }
    given = {name: value for name, value in os.environ.items() if value}
    unset = {name: value for name, value in defaults.items() if f"{name}_FILE" not in given}
    return unset | given | servers.environment


def groups() -> tuple[str, ...]:
    """Return the dependency groups that the service needs: also `profile`, if PROFILE or DEBUG is set."""
    instrumented = os.environ.get("PROFILE") or os.environ.get("DEBUG", "").lower() not in FALSE
    return ("runtime", "embedded", "profile") if instrumented else ("runtime", "embedded")


def check(variables: dict[str, str]) -> None:
    """Import config/settings.py with `variables`, before any server is started.

    Raises Failure, with the line that config/settings.py prints, if a variable is missing or bad.
    """
    command = [PYTHON, "-c", "import config.settings"]
    done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failure(done.stderr.strip())


def port() -> int:
    """Return PORT from the environment, 8000 by default. Raises Failure if it is no port number."""
    text = os.environ.get("PORT") or "8000"
    if not (text.isascii() and text.isdigit() and 0 < int(text) <= GREATEST_PORT):
        raise Failure(f"PORT is {text!r}, not a number from 1 to {GREATEST_PORT}")
    return int(text)
