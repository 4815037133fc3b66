"""Builds a virtual environment from the lock files, or brings it up to date.

A stamp in the environment records its Python, and the digest of each installed group's lock file. So a second run
does nothing, and an interrupted run is noticed.
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
# The options of pip that are taken from the user's variables and configuration files: how to reach an index. Any
# other option, such as `user` or `target`, would put the packages elsewhere or leave them out.
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
    """Make sure that `venv` exists and has the packages of `groups`. If it has to be made, `base` is its Python.

    Raises Failure if Python's venv module or pip fails.
    """
    LOCAL.mkdir(exist_ok=True)
    with locks.turn(LOCAL / f"{venv.name}.lock", f"installs {venv.name}"):
        stamp, version = _stamp(venv), _version(venv)
        # An environment is kept if its Python runs and is the one that it was made with, and if no installation was
        # interrupted.
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
    """Have pip install `requirement` in place of the locked release, unless it is installed. Raises Failure."""
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
    """Return the stamp. An environment without a stamp was made by hand, and counts as one without groups."""
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
    """Return the version text of the environment's Python, or "" if that Python does not run or has no pip."""
    try:
        command = [str(venv / "bin/python"), "-c", "import pip, sys; print(sys.version)"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def _create(venv: Path, base: str) -> None:
    """Make an environment without packages, in place of any that exists. Raises Failure."""
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
            _write_stamp(venv, installed)  # pip has changed nothing yet
        raise
    log.unlink()
    _write_stamp(venv, installed | {group: _digest(group) for group in groups})


def _add(venv: Path, wanted: Sequence[str], log: Path) -> None:
    """Have pip install `wanted` without dependencies, since the lock files name all of them. Raises Failure.

    Of the user's options for pip, only those in REACH apply.
    """
    variables = _reach(venv) | {"PIP_CONFIG_FILE": os.devnull}
    log.unlink(missing_ok=True)
    options = ["--quiet", "--no-input", "--no-deps", "--log", str(log)]
    done = _pip(venv, variables, "install", *options, *wanted)
    if done.returncode:
        network = "the package index cannot be reached: " if "Retrying (" in done.stderr else ""
        raise Failure(f"pip failed: {network}{_last_line(done.stderr)} (more in {log})")


def _reach(venv: Path) -> dict[str, str]:
    """Return the user's settings of the options in REACH as pip's variables. Raises Failure if pip fails.

    The settings come from the environment and from pip's configuration files.
    """
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
    """Run pip in the environment. Of the variables that pip reads (PIP_...), it gets only those in `variables`."""
    others = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    command = [str(venv / "bin/python"), "-m", "pip", "--disable-pip-version-check", *arguments]
    return subprocess.run(command, env=others | variables, capture_output=True, text=True, check=False)


def _write_stamp(venv: Path, groups: dict[str, str] | None) -> None:
    """Write the stamp, with the digests of the installed `groups`. None says that an installation is unfinished."""
    stamp = {} if groups is None else {"python": _version(venv), "groups": groups}
    (venv / STAMP).write_text(json.dumps(stamp, indent=1))


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no message"])[-1].removeprefix("ERROR: ")
