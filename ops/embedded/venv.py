"""Builds a virtual environment from the lock, or brings it up to date.

Its stamp says which Python it has and which state of which group's lock is in it, so that a second run does nothing,
and an interrupted one is noticed.
"""

import hashlib
import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ops.embedded import locks
from ops.embedded.console import Failure, step
from ops.embedded.paths import LOCAL, ROOT

GROUPS = ("runtime", "embedded", "dev", "profile", "lab")
STAMP = "installed.json"


def ensure(venv: Path, groups: Sequence[str], base: str) -> None:
    """Make sure that `venv` exists and has `groups`. `base` is the Python that it is made of, if it must be made."""
    LOCAL.mkdir(exist_ok=True)
    with locks.turn(LOCAL / f"{venv.name}.lock"):
        if not _sound(venv):
            with step(f"Create {venv.name} with Python {_number(base)} ({base})"):
                _create(venv, base)
        stale = [group for group in groups if _installed(venv).get(group) != _digest(group)]
        if stale:
            with step(f"Install {', '.join(stale)} into {venv.name}"):
                _install(venv, stale)


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


def _sound(venv: Path) -> bool:
    """Tell whether its Python runs, is the one that it was made of, and no installation was interrupted."""
    stamp, version = _stamp(venv), _version(venv)
    return bool(version) and "groups" in stamp and stamp.get("python", version) == version


def _version(venv: Path) -> str:
    """Return what its Python says of itself, or nothing if it does not run or has no pip."""
    try:
        command = [str(venv / "bin/python"), "-c", "import pip, sys; print(sys.version)"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def _number(base: str) -> str:
    """Return the version of the Python `base`, as people say it: 3.13.0."""
    command = [base, "-c", "import platform; print(platform.python_version())"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


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
    _write_stamp(venv, None)
    done = _pip(venv, groups, log)
    if done.returncode:  # pip changes nothing before it has everything
        _write_stamp(venv, installed)
        network = "the package index cannot be reached: " if "Retrying (" in done.stderr else ""
        raise Failure(f"pip failed: {network}{_last_line(done.stderr)} (more in {log})")
    log.unlink()
    _write_stamp(venv, installed | {group: _digest(group) for group in groups})


def _pip(venv: Path, groups: Sequence[str], log: Path) -> "subprocess.CompletedProcess[str]":
    log.unlink(missing_ok=True)
    options = ["--quiet", "--disable-pip-version-check", "--no-input", "--require-hashes", "--no-deps"]
    files = [word for group in groups for word in ("-r", str(_lock_file(group)))]
    command = [str(venv / "bin/python"), "-m", "pip", "install", *options, "--log", str(log), *files]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def _write_stamp(venv: Path, groups: dict[str, str] | None) -> None:
    """Write what is installed. None: an installation is going on, or was interrupted."""
    stamp = {} if groups is None else {"python": _version(venv), "groups": groups}
    (venv / STAMP).write_text(json.dumps(stamp, indent=1))


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no message"])[-1].removeprefix("ERROR: ")
