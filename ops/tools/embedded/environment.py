"""The variables that the service is run with: the user's, and a default for each missing one."""

import os
import re
import secrets
import subprocess

from ops.tools.embedded.console import Failure
from ops.tools.embedded.paths import LOCAL, PYTHON, ROOT
from ops.tools.embedded.servers import Servers

GREATEST_PORT = 65535
FALSE = ("", "0", "false", "no", "off")  # as config/env.py reads them
# The variables of a user's shell for other Pythons and virtual environments: where modules come from, how code
# runs. Variables for debugging may stay.
FOREIGN = re.compile(
    r"PYTHON(?!ASYNCIODEBUG|BREAKPOINT|DEVMODE|DONTWRITEBYTECODE|FAULTHANDLER|TRACEMALLOC|UNBUFFERED)\w*"
    r"|__PYVENV_LAUNCHER__|VIRTUAL_ENV\w*|CONDA_\w+|PYTEST_(ADDOPTS|PLUGINS)|MYPYPATH"
    # uv's, but for how it reaches an index (docs.astral.sh/uv/reference/environment).
    r"|UV_(?!CACHE_DIR|CONCURRENT|DEFAULT_INDEX|EXTRA_INDEX|FIND_LINKS|HTTP|INDEX|INSECURE|KEYRING|NATIVE_TLS"
    r"|NO_CACHE|NO_INDEX|OFFLINE|REQUEST|SYSTEM_CERTS)\w+"
)
LIBPQ = re.compile(r"PG[A-Z]+")  # libpq's variables, which a DATABASE_URL of the user's may rely on


def leave_foreign() -> None:
    """Take out of the environment, for this process and those it starts, variables for other programs.

    Python itself reads some as it starts: so the Makefile runs this with -E and -s.
    """
    for name in [*os.environ]:
        libpq = LIBPQ.fullmatch(name) and not os.environ.get("DATABASE_URL")
        if FOREIGN.fullmatch(name) or libpq:
            del os.environ[name]
    module = os.environ.get("DJANGO_SETTINGS_MODULE", "")
    if not (ROOT / module.replace(".", "/")).with_suffix(".py").is_file():  # another project's
        os.environ.pop("DJANGO_SETTINGS_MODULE", None)


def complete(servers: Servers) -> dict[str, str]:
    """Return the environment of manage.py and gunicorn. An empty variable counts as not set."""
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
