"""Clones: by a git that turns line ends into CRLF, as Git for Windows does unless told otherwise; of another name."""

import shutil
import subprocess
from pathlib import Path

import pytest

from ops.project import NAME
from ops.tools.embedded.paths import ROOT
from tests.checkouts import copy, run

FILES = (
    ".gitattributes",
    ".ci/run",
    "Makefile",
    "ops/tools/embedded/find-python.sh",
    "docs/images/api-docs.png",
)
# The tests that know the name.
NAMED = (
    *("tests/test_house.py", "tests/ops/test_container.py", "tests/ops/monitoring/grafana"),
    *(
        "tests/api/cache/test_rights.py::test_does_without",
        "tests/ops/http/test_upstream.py::test_the_request_is_named",
    ),
)


@pytest.mark.skipif(not shutil.which("git"), reason="needs git")
def test_line_ends_survive(tmp_path: Path) -> None:
    origin, clone = tmp_path / "origin", tmp_path / "clone"
    for file in FILES:
        (origin / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / file, origin / file)
    git = ("git", "-C", str(origin), "-c", "user.name=n", "-c", "user.email=e", "-c", "core.autocrlf=false")
    for command in (("init", "--quiet"), ("add", "."), ("commit", "--quiet", "--message", "all")):
        subprocess.run([*git, *command], check=True)
    subprocess.run(["git", "clone", "--quiet", "-c", "core.autocrlf=true", origin, clone], check=True)
    for file in FILES:
        assert (clone / file).read_bytes() == (ROOT / file).read_bytes(), file
    found = subprocess.run(["sh", clone / FILES[3]], capture_output=True, text=True, check=False)
    assert (found.returncode, found.stderr) == (0, "")


def rename(checkout: Path, name: str) -> None:
    """Do what README says."""
    for file, line in (("pyproject.toml", 'name = "{}"'), ("compose.yaml", "name: {}")):
        text = (checkout / file).read_text()
        assert text.count(line.format(NAME)) == 1
        (checkout / file).write_text(text.replace(line.format(NAME), line.format(name)))
    done = run(checkout, "-m", "ops.monitoring.grafana")  # make dashboards
    assert done.returncode == 0, done.stderr


def test_another_name(tmp_path: Path) -> None:
    """Also one that is a word of the code."""
    rename(copy(tmp_path), "orders")
    done = run(tmp_path, "-m", "pytest", "-q", *NAMED)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
