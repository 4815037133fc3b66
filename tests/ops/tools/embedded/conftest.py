"""Checkouts of the tests' own: the same files, without data or a virtual environment."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from ops.tools.embedded.paths import ROOT


@dataclass
class Checkout:
    """A copy of the repository, and its commands."""

    root: Path

    @contextmanager
    def start(self, *arguments: str, **variables: str) -> Iterator["subprocess.Popen[str]"]:
        """Run a command as make does, in a process group of its own, until the block ends."""
        private = {"DATABASE_URL": "", "REDIS_URL": "", "DJANGO_SETTINGS_MODULE": "config.settings"}
        process = subprocess.Popen(
            [sys.executable, "-m", "ops.tools.embedded", *arguments],
            cwd=self.root,
            env=os.environ | private | variables,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            process.terminate()  # unless the block has seen its end
            process.communicate(timeout=60)

    def run(self, *arguments: str, **variables: str) -> tuple[int, str]:
        """Run a command to its end, and return its exit status and what it said."""
        with self.start(*arguments, **variables) as process:
            said, _ = process.communicate(timeout=60)
        return process.returncode, said


def copy(target: Path) -> Checkout:
    """Copy all but the tests and what begins with a dot: data, environments, caches."""
    left_out = shutil.ignore_patterns(".*", "__pycache__", "tests")
    shutil.copytree(ROOT, target, ignore=left_out, dirs_exist_ok=True)
    return Checkout(target)


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A directory whose path leaves room for a socket's. Pytest's tmp_path is long with xdist."""
    with tempfile.TemporaryDirectory() as directory:
        yield Path(directory)


@pytest.fixture
def checkout(short_path: Path) -> Checkout:
    return copy(short_path)


@pytest.fixture
def used_port() -> Iterator[int]:
    """A port on which something listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
