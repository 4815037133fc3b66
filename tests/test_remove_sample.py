"""`make remove-sample` in a copy of this checkout, and the runtime's tests after it."""

import shutil
from pathlib import Path

import pytest

from ops.tools.embedded.paths import ROOT
from ops.tools.embedded.sample import EDITS, FOLDERS, SAMPLE
from tests.checkouts import copy, digests_of, run

pytestmark = [
    pytest.mark.skipif(not (ROOT / SAMPLE).is_dir(), reason="the sample is gone"),
    pytest.mark.xdist_group("remove-sample"),  # in one process, which makes the copy once
]

# A part of each room: a list, a compiled query, the page cache, the settings, the import directions.
REPRESENTATIVE = (
    *("tests/api/test_list.py", "tests/api/cache/test_policy.py", "tests/ops/postgres/test_compiled.py"),
    *("tests/config/test_env.py", "tests/test_house.py"),
    "tests/config/test_settings.py::test_deployment_checks_are_clean",
)
PRIVATE = {"DATABASE_URL": "", "REDIS_URL": ""}  # servers: the other tests' databases have these tests' names


def collected(checkout: Path) -> set[str]:
    """The tests that pytest finds but the sample's, with those of its service in compose.yaml, and of this file."""
    listed = run(
        checkout,
        "-m",
        "pytest",
        "--collect-only",
        "-q",
        "--ignore=tests/products",
        "--deselect",
        __name__,
        **PRIVATE,
    )
    assert listed.returncode == 0, listed.stdout + listed.stderr
    found = {line for line in listed.stdout.splitlines() if "::" in line and "test_remove_sample" not in line}
    return {line for line in found if "test_container.py" not in line or not line.endswith("[rates]")}


@pytest.fixture(scope="module")
def removed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, set[str]]:
    """A checkout without the sample, and the tests that it had before."""
    checkout = copy(tmp_path_factory.mktemp("clone"))
    if (cache := ROOT / ".mypy_cache").exists():  # of a run before: it takes a third of the time then
        shutil.copytree(cache, checkout / cache.name)
    before, digests = collected(checkout), digests_of(checkout)
    done = run(checkout, "-m", "ops.tools.embedded", "remove-sample")
    assert (done.returncode, done.stderr) == (0, "")
    lines = [f"deleted {folder}/" for folder in FOLDERS] + [f"edited {file}" for file in EDITS]
    assert done.stdout.splitlines()[: len(lines)] == lines
    assert digests_of(checkout) == digests  # `make test` takes a minute still
    for file in ("config/settings.py", "compose.yaml"):
        assert "rates" not in (checkout / file).read_text().lower(), file
    assert 'description="The resources of this service."' in (checkout / "config" / "urls.py").read_text()
    return checkout, before


def test_the_runtimes_tests_are_as_many_as_before(removed: tuple[Path, set[str]]) -> None:
    checkout, before = removed
    assert len(before) > 1000
    assert collected(checkout) == before


def test_they_pass(removed: tuple[Path, set[str]]) -> None:
    done = run(removed[0], "-m", "pytest", "-q", "-x", *REPRESENTATIVE, **PRIVATE)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


@pytest.mark.parametrize(
    "tool", [("ruff", "check"), ("ruff", "format", "--check"), ("mypy", "config", "ops")], ids=" ".join
)
def test_the_checks_pass(removed: tuple[Path, set[str]], tool: tuple[str, ...]) -> None:
    done = run(removed[0], "-m", *tool)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_second_time(removed: tuple[Path, set[str]]) -> None:
    done = run(removed[0], "-m", "ops.tools.embedded", "remove-sample")
    assert (done.returncode, done.stdout) == (0, "There is no sample to remove.\n")


def test_what_a_team_has_written_beside_it_stays(tmp_path: Path) -> None:
    checkout = copy(tmp_path)
    settings, urls = checkout / "config/settings.py", checkout / "config/urls.py"
    weather = 'WEATHER_URL = env.http_url("WEATHER_URL")\n'
    text = settings.read_text().replace("# The addresses of", f"{weather}# The addresses of")
    settings.write_text(text.replace("[RATES_URL]", "[RATES_URL, WEATHER_URL]"))
    routers = 'api.add_router("", products, tags=["a"])\napi.add_router("/products", orders)'
    urls.write_text(urls.read_text().replace('api.add_router("", products)', routers))
    done = run(checkout, "-m", "ops.tools.embedded", "remove-sample")
    assert (done.returncode, done.stderr) == (0, "")
    section = settings.read_text().partition("# --- Other services ")[2].partition("# --- ")[0]
    assert weather in section
    assert "UPSTREAM_URLS: list[str] = [WEATHER_URL]\n" in section
    assert "RATES" not in settings.read_text()
    assert [line for line in urls.read_text().splitlines() if "add_router" in line] == routers.splitlines()[
        1:
    ]
    formatted = run(checkout, "-m", "ruff", "format", "--check", "config")
    assert formatted.returncode == 0, formatted.stdout


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("stalls/models.py", "from products.models import Product"),
        ("stalls/models.py", 'category = models.ForeignKey("products.Category", models.CASCADE)'),
        ("stalls/models.py", "Product = apps.get_model('products', 'Product')"),
        ("stalls/migrations/0001_initial.py", 'dependencies = [("products", "0001_initial")]'),
        ("stalls/migrations/0001_initial.py", 'field = models.ForeignKey(to="products.category")'),
        ("config/settings.py", "BACKUP_URL = RATES_URL"),
        ("config/urls.py", 'api.add_router("/old", products, auth=key())'),
        ("compose.yaml", "  weather: {command: [http.server, --directory, products/stand_ins]}"),
    ],
)
def test_code_that_uses_it_stays_with_it(tmp_path: Path, file: str, line: str) -> None:
    checkout = copy(tmp_path)
    user = checkout / file
    user.parent.mkdir(parents=True, exist_ok=True)
    before = user.read_text() if user.exists() else "import re\n\n"
    user.write_text(f"{before}{line}\n")
    done = run(checkout, "-m", "ops.tools.embedded", "remove-sample")
    place = f"{file}:{len(before.splitlines()) + 1}"
    assert (done.returncode, done.stderr) == (
        1,
        f"error: products cannot be removed, for it is used in {place}\n",
    )
    assert all((checkout / folder).is_dir() for folder in FOLDERS)
    assert user.read_text() == f"{before}{line}\n"


def test_the_word_alone_is_no_use_of_it(tmp_path: Path) -> None:
    checkout = copy(tmp_path)
    (checkout / "stalls").mkdir()
    (checkout / "stalls/api.py").write_text('ORDERS = ("products", "products.total", {"/products": 1})\n')
    done = run(checkout, "-m", "ops.tools.embedded", "remove-sample")
    assert (done.returncode, done.stderr) == (0, "")
