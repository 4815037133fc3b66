"""Clones: by a git that turns line ends into CRLF, as Git for Windows does unless told otherwise; of another name."""

import shutil
import subprocess
from pathlib import Path

import pytest

from ops.project import NAME
from ops.tools.embedded.paths import ROOT
from tests.checkouts import copy, digests_of, run

FILES = (
    ".gitattributes",
    ".ci/run",
    "Makefile",
    "ops/tools/embedded/find-python.sh",
    "docs/images/api-docs.png",
)
# The tests that know the name.
NAMED = (
    *("tests/test_house.py", "tests/test_container.py", "tests/ops/monitoring/grafana"),
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
    """Also one that is a word of the code. The runtime need not pass its tests again for that."""
    _, runtime = digests_of(copy(tmp_path))
    rename(tmp_path, "orders")
    assert digests_of(tmp_path)[1] == runtime
    done = run(tmp_path, "-m", "pytest", "-q", *NAMED)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def test_resources_of_its_own(tmp_path: Path) -> None:
    """With the calls that they make. The runtime need not pass its tests again for these, but for another setting."""
    settings, digests = copy(tmp_path) / "config/settings.py", digests_of(tmp_path)
    text = settings.read_text()
    own = text.replace(
        '    "api.apps.ApiConfig",\n', '    "api.apps.ApiConfig",\n    "orders.apps.OrdersConfig",\n'
    )
    own = own.replace("UPSTREAM_URLS: ", 'WEATHER_URL = env.http_url("WEATHER_URL")\nUPSTREAM_URLS: ')
    assert len(own.splitlines()) == len(text.splitlines()) + 2
    settings.write_text(own)
    (tmp_path / "orders").mkdir()
    (tmp_path / "orders/apps.py").touch()
    assert digests_of(tmp_path) == digests
    settings.write_text(own.replace("BODY_LIMIT = 1024", "BODY_LIMIT = 2048"))
    assert digests_of(tmp_path)[1] != digests[1]
