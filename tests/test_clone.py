"""A clone by a git that turns line ends into CRLF, as Git for Windows does unless told otherwise."""

import shutil
import subprocess
from pathlib import Path

import pytest

from ops.tools.embedded.paths import ROOT

FILES = (
    ".gitattributes",
    ".ci/run",
    "Makefile",
    "ops/tools/embedded/find-python.sh",
    "docs/images/api-docs.png",
)
pytestmark = pytest.mark.skipif(not shutil.which("git"), reason="needs git")


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
