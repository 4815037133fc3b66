"""Copies of this checkout, which a test may change, and commands that run in them."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from ops.tools.embedded.paths import ROOT

LEFT_OUT = (".git", ".venv*", ".local", ".*_cache", ".hypothesis", "__pycache__")


def copy(target: Path) -> Path:
    """Copy all but the history, environments, data and caches."""
    shutil.copytree(ROOT, target, ignore=shutil.ignore_patterns(*LEFT_OUT), dirs_exist_ok=True)
    return target


def run(checkout: Path, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command of Python's, with nothing of the pytest that runs this; variables add to the environment."""
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "DJANGO"))
    }
    return subprocess.run(
        [sys.executable, *command],
        cwd=checkout,
        env=inherited | variables,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
