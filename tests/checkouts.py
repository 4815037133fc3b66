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


def digests_of(checkout: Path) -> tuple[str, str]:
    """Return the digests of the tools and of the runtime there, by which `make test` leaves out their tests."""
    program = (
        "from ops.tools.embedded.gate import *; print(digest_of(PARTS[TOOLS]), digest_of(PARTS[RUNTIME]))"
    )
    done = run(checkout, "-c", program)
    assert done.returncode == 0, done.stderr
    tools, runtime = done.stdout.split()
    return tools, runtime
