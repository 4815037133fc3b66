"""The first step, which must be clear on any machine: which Python is used."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ops.tools.embedded.paths import ROOT

VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """The only directory on PATH."""
    (tmp_path / "sh").symlink_to("/bin/sh")
    return tmp_path


def script(directory: Path, name: str, body: str) -> None:
    path = directory / name
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


def find(directory: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["/bin/sh", str(ROOT / "ops/tools/embedded/find-python.sh"), *arguments],
        env={"PATH": os.fspath(directory)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_one_that_does_not_run_is_passed_over(directory: Path) -> None:
    """Pyenv puts a shim on PATH for every version; it refuses to run those that are not selected."""
    script(directory, "python3.13", "echo 'pyenv: python3.13: command not found' >&2; exit 127")
    script(directory, "python3", f'exec "{sys.executable}" "$@"')
    assert find(directory).stdout == f"{directory}/python3\n"


def test_a_version_can_be_asked_for(directory: Path) -> None:
    script(directory, f"python{VERSION}", f'exec "{sys.executable}" "$@"')
    assert find(directory, VERSION).stdout == f"{directory}/python{VERSION}\n"
    missing = find(directory, "3.99")
    assert (missing.returncode, missing.stdout, missing.stderr) == (1, "", "")


@pytest.mark.parametrize(
    ("body", "line"),
    [
        (None, "error: Python 3.11 or newer is needed, here is no python3. "),
        (
            'test "$1" = --version && echo Python 3.8.1',
            "error: Python 3.11 or newer is needed, here is Python 3.8.1. ",
        ),
        ('case "$2" in *ensurepip*) exit 1; esac', "error: {}/python3 cannot create virtual environments. "),
    ],
    ids=["none", "old", "no ensurepip"],
)
def test_what_is_missing_is_one_line(directory: Path, body: str | None, line: str) -> None:
    if body:
        script(directory, "python3", body)
    found = find(directory)
    assert found.returncode == 1
    assert found.stderr.startswith(line.format(directory))
    assert found.stderr.count("\n") == 1
