"""Builds a virtual environment from the lock, or brings it up to date.

Its stamp says which Python it has and which state of which group's lock is in it, so that a second run does nothing,
and an interrupted one is noticed.
"""

import ast
import hashlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ops.tools.embedded import locks
from ops.tools.embedded.console import Failure, step
from ops.tools.embedded.paths import LOCAL, ROOT

GROUPS = ("runtime", "embedded", "dev", "profile", "lab")
STAMP = "installed.json"
# Options in the user's variables and files that pip keeps: the way to an index. Any other option, such as `user` or
# `target`, would put the packages elsewhere or leave them out.
REACH = {
    *(
        "index-url",
        "pypi-url",
        "extra-index-url",
        "no-index",
        "find-links",
        "trusted-host",
        "keyring-provider",
    ),
    *(
        "cert",
        "client-cert",
        "proxy",
        "timeout",
        "default-timeout",
        "retries",
        "use-feature",
        "use-deprecated",
    ),
    *("cache-dir", "no-cache-dir"),
}
SECTIONS = ("global", "install", ":env:")  # of pip's configuration, the strongest last


def ensure(venv: Path, groups: Sequence[str], base: str) -> None:
    """Make sure that `venv` exists and has `groups`. `base` is the Python that it is made of, if it must be made."""
    LOCAL.mkdir(exist_ok=True)
    with locks.turn(LOCAL / f"{venv.name}.lock", f"installs {venv.name}"):
        stamp, version = _stamp(venv), _version(venv)
        # Its Python runs, is the one that it was made of, and no installation was interrupted.
        if not (version and "groups" in stamp and stamp.get("python", version) == version):
            command = [base, "-c", "import platform; print(platform.python_version())"]
            number = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
            with step(f"Create {venv.name} with Python {number} ({base})"):
                _create(venv, base)
        stale = [group for group in groups if _installed(venv).get(group) != _digest(group)]
        if stale:
            with step(f"Install {', '.join(stale)} into {venv.name}"):
                _install(venv, stale)


def replace(venv: Path, requirement: str) -> None:
    """Install `requirement` in place of the lock's, if it is not there yet."""
    log = LOCAL / f"pip{venv.name}.log"
    with (
        locks.turn(LOCAL / f"{venv.name}.lock", f"installs {venv.name}"),
        step(f"Install {requirement} into {venv.name}"),
    ):
        _add(venv, [requirement], log)
        log.unlink()


def _lock_file(group: str) -> Path:
    return ROOT / "requirements" / f"{group}.txt"


def _digest(group: str) -> str:
    return hashlib.sha256(_lock_file(group).read_bytes()).hexdigest()


def _stamp(venv: Path) -> dict[str, Any]:
    """Read the stamp. A missing one means an environment that was made by hand."""
    try:
        stamp: dict[str, Any] = json.loads((venv / STAMP).read_text())
    except FileNotFoundError:
        return {"groups": {}}
    except ValueError:  # half written
        return {}
    return stamp


def _installed(venv: Path) -> dict[str, str]:
    return dict(_stamp(venv)["groups"])


def _version(venv: Path) -> str:
    """Return its Python's description, or nothing if it does not run or has no pip."""
    try:
        command = [str(venv / "bin/python"), "-c", "import pip, sys; print(sys.version)"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def _create(venv: Path, base: str) -> None:
    shutil.rmtree(venv, ignore_errors=True)
    venv.mkdir()
    _write_stamp(venv, None)
    done = subprocess.run([base, "-m", "venv", str(venv)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failure(f"{base} -m venv failed: {_last_line(done.stdout + done.stderr)}")
    _write_stamp(venv, {})


def _install(venv: Path, groups: Sequence[str]) -> None:
    installed, log = _installed(venv), LOCAL / f"pip{venv.name}.log"
    files = [word for group in groups for word in ("-r", str(_lock_file(group)))]
    _write_stamp(venv, None)
    try:
        _add(venv, ["--require-hashes", *files], log)
    except Failure:
        if not log.exists() or "Installing collected packages" not in log.read_text(errors="replace"):
            _write_stamp(venv, installed)  # it has changed nothing yet
        raise
    log.unlink()
    _write_stamp(venv, installed | {group: _digest(group) for group in groups})


def _add(venv: Path, wanted: Sequence[str], log: Path) -> None:
    """Install without dependencies, which the lock names all, and with nothing of the user's but REACH."""
    variables = _reach(venv) | {"PIP_CONFIG_FILE": os.devnull}
    log.unlink(missing_ok=True)
    options = ["--quiet", "--no-input", "--no-deps", "--log", str(log)]
    done = _pip(venv, variables, "install", *options, *wanted)
    if done.returncode:
        network = "the package index cannot be reached: " if "Retrying (" in done.stderr else ""
        raise Failure(f"pip failed: {network}{_last_line(done.stderr)} (more in {log})")


def _reach(venv: Path) -> dict[str, str]:
    """Return, as pip's variables, the options in REACH of the user's variables and configuration files."""
    own = {}
    for name, value in os.environ.items():
        option = name.removeprefix("PIP_").lower().replace("_", "-")  # PIP_INDEX_URL sets index-url
        if name.startswith("PIP_") and option in {*REACH, "config-file"}:
            own[name] = value
    done = _pip(venv, own | {"PIP_QUIET": "0"}, "config", "list")
    if done.returncode:
        raise Failure(f"pip config list failed: {_last_line(done.stdout + done.stderr)}")
    lines = re.findall(r"^(\S+?)\.([a-z-]+)=(.*)$", done.stdout, re.MULTILINE)
    return {
        f"PIP_{option.replace('-', '_').upper()}": str(ast.literal_eval(value))
        for strength in SECTIONS
        for section, option, value in lines
        if section == strength and option in REACH
    }


def _pip(venv: Path, variables: dict[str, str], *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run pip with no variable of its own but `variables`."""
    others = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    command = [str(venv / "bin/python"), "-m", "pip", "--disable-pip-version-check", *arguments]
    return subprocess.run(command, env=others | variables, capture_output=True, text=True, check=False)


def _write_stamp(venv: Path, groups: dict[str, str] | None) -> None:
    """Write the list of installed packages. None: an installation is going on, or was interrupted."""
    stamp = {} if groups is None else {"python": _version(venv), "groups": groups}
    (venv / STAMP).write_text(json.dumps(stamp, indent=1))


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no message"])[-1].removeprefix("ERROR: ")
