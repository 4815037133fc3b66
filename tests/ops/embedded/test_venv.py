"""The virtual environment: made, kept, and made anew when it is broken."""

import json
import os
import platform
import signal
import sys
from pathlib import Path

import pytest

from ops.embedded.console import until

from .conftest import Checkout


@pytest.fixture
def empty(checkout: Checkout) -> Checkout:
    """A checkout whose lock names no packages, so that nothing is downloaded."""
    for file in (checkout.root / "requirements").iterdir():
        file.write_text(f"# {file.name}\n")
    return checkout


def groups(checkout: Checkout) -> list[str]:
    return list(json.loads((checkout.root / ".venv/installed.json").read_text())["groups"])


def test_made_once_then_only_what_changed(empty: Checkout) -> None:
    status, said = empty.run("venv", "runtime")
    assert status == 0, said
    assert said.startswith(f"Create .venv with Python {platform.python_version()} ({sys.executable}) ... ")
    assert empty.run("venv", "runtime") == (0, "")
    (empty.root / "requirements/runtime.txt").write_text("# renewed\n")
    status, said = empty.run("venv", "runtime", "dev")
    assert status == 0, said
    assert said.startswith("Install runtime, dev into .venv ... ")
    assert groups(empty) == ["runtime", "dev"]


def test_what_was_interrupted_is_made_anew(empty: Checkout) -> None:
    stamp = empty.root / ".venv/installed.json"
    with empty.start("venv", "runtime") as process:
        until(stamp.exists, "the beginning")
        os.killpg(process.pid, signal.SIGKILL)
    status, said = empty.run("venv", "runtime")
    assert status == 0, said
    assert said.startswith(f"Create .venv with Python {platform.python_version()} ({sys.executable}) ... ")
    assert groups(empty) == ["runtime"]


def test_a_vanished_interpreter_is_noticed(empty: Checkout) -> None:
    broken = empty.root / ".venv/bin/python"
    broken.parent.mkdir(parents=True)
    broken.symlink_to("/nowhere/python3")
    status, said = empty.run("venv", "runtime")
    assert status == 0, said
    assert groups(empty) == ["runtime"]


def test_a_failing_pip_is_one_line(empty: Checkout) -> None:
    wanted = f"nothing-of-that-name==1.0 --hash=sha256:{'0' * 64}\n"
    (empty.root / "requirements/runtime.txt").write_text(wanted)
    status, said = empty.run("venv", "runtime", PIP_NO_INDEX="1")
    assert status == 1
    assert said.splitlines()[-1].startswith(
        "error: pip failed: No matching distribution found for nothing-of"
    )
    assert groups(empty) == []
    assert Path(said.split("(more in ")[1].rstrip(")\n")).read_text()
