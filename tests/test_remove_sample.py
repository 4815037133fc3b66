"""`make remove-sample` in a copy of this checkout, and the runtime's tests after it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ops.tools.embedded.paths import ROOT
from ops.tools.embedded.sample import EDITS, FOLDERS, SAMPLE

pytestmark = [
    pytest.mark.skipif(not (ROOT / SAMPLE).is_dir(), reason="the sample is gone"),
    pytest.mark.xdist_group("remove-sample"),  # in one process, which makes the copy once
]

# A part of each room: a list, a compiled query, the page cache, the import directions.
REPRESENTATIVE = (
    *("tests/api/test_list.py", "tests/api/cache/test_policy.py", "tests/ops/postgres/test_compiled.py"),
    "tests/test_house.py",
)


def run(checkout: Path, *command: str) -> subprocess.CompletedProcess[str]:
    private = {"DATABASE_URL": "", "REDIS_URL": ""}
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "DJANGO"))
    }
    return subprocess.run(
        [sys.executable, *command],
        cwd=checkout,
        env={**environment, **private},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )


def copy(target: Path) -> Path:
    left_out = shutil.ignore_patterns(".*", "__pycache__")
    shutil.copytree(ROOT, target, ignore=left_out, dirs_exist_ok=True)
    return target


def collected(checkout: Path) -> set[str]:
    """The tests that pytest finds but the sample's, with those of its service in compose.yaml, and of this file."""
    listed = run(
        checkout, "-m", "pytest", "--collect-only", "-q", "--ignore=tests/products", "--deselect", __name__
    )
    assert listed.returncode == 0, listed.stdout + listed.stderr
    found = {line for line in listed.stdout.splitlines() if "::" in line and "test_remove_sample" not in line}
    return {line for line in found if "test_container.py" not in line or not line.endswith("[rates]")}


@pytest.fixture(scope="module")
def removed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, set[str]]:
    """A checkout without the sample, and the tests that it had before."""
    checkout = copy(tmp_path_factory.mktemp("clone"))
    before = collected(checkout)
    done = run(checkout, "-m", "ops.tools.embedded", "remove-sample")
    assert (done.returncode, done.stderr) == (0, "")
    lines = [f"deleted {folder}/" for folder in FOLDERS] + [f"edited {file}" for file in EDITS]
    assert done.stdout.splitlines()[: len(lines)] == lines
    for file in ("config/settings.py", "compose.yaml"):
        assert "rates" not in (checkout / file).read_text().lower(), file
    assert 'description="The resources of this service."' in (checkout / "config" / "urls.py").read_text()
    return checkout, before


def test_the_runtimes_tests_are_as_many_as_before(removed: tuple[Path, set[str]]) -> None:
    checkout, before = removed
    assert len(before) > 1000
    assert collected(checkout) == before


def test_they_pass(removed: tuple[Path, set[str]]) -> None:
    done = run(removed[0], "-m", "pytest", "-q", "-x", *REPRESENTATIVE)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


@pytest.mark.parametrize("tool", [("ruff", "check"), ("ruff", "format", "--check")], ids=" ".join)
def test_the_checks_pass(removed: tuple[Path, set[str]], tool: tuple[str, ...]) -> None:
    done = run(removed[0], "-m", *tool)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_second_time(removed: tuple[Path, set[str]]) -> None:
    done = run(removed[0], "-m", "ops.tools.embedded", "remove-sample")
    assert (done.returncode, done.stdout) == (0, "There is no sample to remove.\n")


def test_code_that_uses_it_stays_with_it(tmp_path: Path) -> None:
    checkout = copy(tmp_path)
    (checkout / "orders").mkdir()
    (checkout / "orders" / "models.py").write_text("import re\n\nfrom products.models import Product\n")
    done = run(checkout, "-m", "ops.tools.embedded", "remove-sample")
    assert done.returncode == 1
    assert done.stderr == "error: products cannot be removed, for it is used in orders/models.py:3\n"
    assert all((checkout / folder).is_dir() for folder in FOLDERS)
