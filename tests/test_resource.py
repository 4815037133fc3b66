"""A resource of a team's own, as docs/writing.md and docs/testing.md have it, in a copy of this checkout."""

import re
import sys
from pathlib import Path

import pytest

from ops.tools.embedded.paths import ROOT
from tests.checkouts import copy, run

DOCUMENTS = [ROOT / "docs" / name for name in ("writing.md", "testing.md")]
FILE = re.compile(r"^```python\n# ([\w/]+\.py)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
# What docs/writing.md tells to edit.
EDITS = {
    "config/settings.py": (r"(INSTALLED_APPS = \[\n(?: .*\n)+)", r'\1    "orders.apps.OrdersConfig",\n'),
    "config/urls.py": (
        r"(from api import Api\n)((?:.*\n)+?)(\nurlpatterns)",
        r'\1from orders.api import router as orders\n\2api.add_router("", orders)\n\3',
    ),
}
# Of the runtime's tests, some that bring all of the shop's pages and some with pages of their own.
OTHERS = ("tests/api/test_list.py", "tests/api/cache/test_policy.py", "tests/api/cache/test_endpoints.py")

pytestmark = [
    pytest.mark.skipif(not all(map(Path.exists, DOCUMENTS)), reason="the documents are gone"),
    pytest.mark.skipif((ROOT / "orders").exists(), reason="the service has orders"),
    pytest.mark.xdist_group("resource"),  # in one process, which makes the copy once
]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    checkout = copy(tmp_path_factory.mktemp("team"))
    (checkout / ".venv").symlink_to(sys.prefix)
    files = dict(FILE.findall("".join(document.read_text() for document in DOCUMENTS)))
    for name, text in {**files, "orders/__init__.py": "", "tests/orders/__init__.py": ""}.items():
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout / name).write_text(text)
    for name, (pattern, replacement) in EDITS.items():
        text, edits = re.subn(pattern, replacement, (checkout / name).read_text())
        assert edits == 1, name
        (checkout / name).write_text(text)
    done = run(checkout, "-m", "ops.tools.embedded", "manage", "makemigrations", "orders")
    assert done.returncode == 0, done.stdout + done.stderr
    return checkout


def test_make_format_has_nothing_to_name(checkout: Path) -> None:
    own = run(checkout, "-m", "ruff", "format", "--diff", "--exclude", "migrations", "orders", "tests/orders")
    assert own.returncode == 0, own.stdout
    for tool in (("ruff", "format"), ("ruff", "check")):
        done = run(checkout, "-m", *tool)
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_system_checks_pass(checkout: Path) -> None:
    done = run(checkout, "-m", "ops.tools.embedded", "manage", "check", "--deploy", "--fail-level", "WARNING")
    assert done.returncode == 0, done.stdout + done.stderr


def test_its_tests_pass_beside_those_of_the_runtime(checkout: Path) -> None:
    """In one process with them, before and after: pages of the same names are no concern of each other's."""
    done = run(checkout, "-m", "pytest", "-q", "-x", *OTHERS, "tests/orders", "tests/test_house.py")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
