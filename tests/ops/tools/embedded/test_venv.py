"""The virtual environment: made, kept, and made anew when it is broken."""

import hashlib
import json
import os
import platform
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from ops.tools.embedded.console import until

from .conftest import Checkout


@pytest.fixture
def empty(checkout: Checkout) -> Checkout:
    """A checkout whose lock names no packages, so that nothing is downloaded."""
    for file in (checkout.root / "requirements").iterdir():
        file.write_text(f"# {file.name}\n")
    return checkout


def package(directory: Path, name: str, files: dict[str, str]) -> str:
    """Write a wheel with `files`; return its line of a lock."""
    metadata = {
        "METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
        "WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "RECORD": "",
    }
    wheel = directory / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, text in {
            **files,
            **{f"{name}-1.0.dist-info/{file}": text for file, text in metadata.items()},
        }.items():
            archive.writestr(path, text)
    return f"{name}==1.0 --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}\n"


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


def test_another_django_has_an_environment_of_its_own(empty: Checkout) -> None:
    refused = "error: DJANGO is 'six', not a release such as 6.1 or 6.1.3\n"
    assert empty.run("test", DJANGO="six") == (1, refused)
    status, said = empty.run("test", DJANGO="6.1", PIP_NO_INDEX="1")
    assert status == 1
    assert "Install django==6.1.* into .venv-django6.1 ... " in said
    assert said.splitlines()[-1].startswith(
        "error: pip failed: No matching distribution found for django==6.1.*"
    )
    assert (empty.root / ".venv-django6.1/installed.json").exists()
    assert not (empty.root / ".venv").exists()


def test_what_a_user_has_set_for_others_stays_outside(empty: Checkout, tmp_path: Path) -> None:
    """All at once. Only how pip reaches an index, in a variable or a file, comes through."""
    (empty.root / "requirements/runtime.txt").write_text(package(tmp_path, "one", {"one.py": ""}))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "json.py").write_text("raise SystemExit('not this one')")
    lines = ("[global]", "user = true", "no-index = true", "quiet = 3", "[install]", f"target = {elsewhere}")
    (tmp_path / "pip.conf").write_text("\n".join(lines))
    pip = {"USER": "1", "TARGET": str(elsewhere), "PREFIX": str(elsewhere), "REQUIRE_VIRTUALENV": "1"}
    pip |= {
        "DRY_RUN": "1",
        "PYTHON": "/nowhere",
        "CONSTRAINT": "/nowhere",
        "NO_BINARY": ":all:",
        "QUIET": "3",
    }
    pip |= {"CONFIG_FILE": str(tmp_path / "pip.conf"), "FIND_LINKS": str(tmp_path)}
    python = {
        "PATH": str(elsewhere),
        "HOME": str(elsewhere),
        "USERBASE": str(elsewhere),
        "STARTUP": "/nowhere",
    }
    python |= {
        "WARNINGS": "error",
        "OPTIMIZE": "2",
        "SAFEPATH": "1",
        "PLATLIBDIR": "nowhere",
        "NOUSERSITE": "",
    }
    hostile = {f"PIP_{name}": value for name, value in pip.items()}
    hostile |= {f"PYTHON{name}": value for name, value in python.items()}
    hostile |= dict.fromkeys(("VIRTUAL_ENV", "CONDA_PREFIX", "UV_PYTHON"), str(elsewhere))
    made = subprocess.run(
        ["make", "--directory", empty.root, "venv"],
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), **hostile},
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stdout + made.stderr
    assert {*elsewhere.iterdir()} <= {elsewhere / "json.py", elsewhere / "__pycache__"}
    subprocess.run([empty.root / ".venv/bin/python", "-c", "import one"], check=True)


def test_what_pip_left_half_installed_counts_as_interrupted(empty: Checkout, tmp_path: Path) -> None:
    """So that the next run makes it anew, as above. A pip that failed before has changed nothing."""
    (empty.root / "requirements/runtime.txt").write_text(
        package(tmp_path, "one", {"one.py": ""}) + package(tmp_path, "two", {"../../../outside.py": ""})
    )
    status, said = empty.run("venv", "runtime", PIP_NO_INDEX="1", PIP_FIND_LINKS=str(tmp_path))
    assert status == 1
    assert said.splitlines()[-1].startswith("error: pip failed: ")
    assert json.loads((empty.root / ".venv/installed.json").read_text()) == {}
