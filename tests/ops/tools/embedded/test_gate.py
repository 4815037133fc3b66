"""Which tests `make test` runs: those of a part only if one of its files has changed, or all are asked for.

And which it runs twice: the few that failed beside others.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from contextlib import nullcontext
from pathlib import Path

import pytest

from ops.tools.embedded import gate
from ops.tools.embedded.console import Failure
from ops.tools.embedded.paths import ROOT

OF_TOOLS, OF_RUNTIME, OF_SAMPLE, OF_LAB = (
    {f"--ignore-glob={pattern}" for pattern in gate.PARTS[name].tests}
    for name in (gate.TOOLS, gate.RUNTIME, gate.SAMPLE, gate.LAB)
)
OF_ALL = OF_TOOLS | OF_RUNTIME | OF_SAMPLE | OF_LAB
SETTINGS = """
INSTALLED_APPS = [
    "api.apps.ApiConfig",
    "zoo.apps.ZooConfig",
]
# --- Other services ---
RATES_URL = env.http_url("RATES_URL")
# --- Instruments ---
METRICS_PORT = 9100
"""
PYPROJECT = """
[project]
name = "sub10"
version = "0.1.0"
[tool.ruff]
line-length = 110
[tool.pytest.ini_options]
filterwarnings = ["error"]
"""


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout whose gate runs nothing, and has other Pythons for nothing."""
    for file in (
        "ops/tools/lab/run.py",
        "tests/ops/tools/lab/test_run.py",
        "requirements/embedded.txt",
        "requirements/lab.txt",
        "requirements/runtime.txt",
        "api/reads/listing.py",
        "tests/api/test_list.py",
        "tests/conftest.py",
        "tests/test_remove_sample.py",
        "gunicorn.conf.py",
        "config/urls.py",
        "products/api.py",
        "orders/api.py",
    ):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(f"{file}\n")
    (tmp_path / "config/settings.py").write_text(SETTINGS)
    (tmp_path / "pyproject.toml").write_text(PYPROJECT)
    for name, value in {
        "ROOT": tmp_path,
        "VENV": tmp_path / ".venv",
        "PASSED": tmp_path / "tests/passed.sha256",
    }.items():
        monkeypatch.setattr(gate, name, value)
    monkeypatch.setattr("ops.tools.embedded.venv.ensure", lambda *_: None)
    monkeypatch.setattr(gate, "_other_venvs", list)
    for name in ("DJANGO", "ALL"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def skipped(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The folders that the last of the gate's commands leaves out."""
    ran: list[list[str]] = []

    def run(commands: Iterable[list[str]]) -> None:
        ran.extend(commands)

    monkeypatch.setattr(gate, "_run", run)
    gate.test()
    return {part for part in ran[-1] if part.startswith("--ignore")}


def test_what_passed_is_not_tested_again(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert skipped(monkeypatch) == set()
    assert skipped(monkeypatch) == OF_ALL
    (tree / "ops/tools/lab/run.pyc").touch()
    assert skipped(monkeypatch) == OF_ALL
    monkeypatch.setenv("ALL", "1")
    assert skipped(monkeypatch) == set()
    monkeypatch.setenv("ALL", "runtime")
    assert skipped(monkeypatch) == OF_ALL - OF_RUNTIME
    monkeypatch.setenv("ALL", "everything")
    with pytest.raises(Failure, match="ALL is 'everything', not 1 or runtime"):
        gate.test()


@pytest.mark.parametrize(
    ("file", "tested"),
    [
        ("tests/conftest.py", OF_TOOLS | OF_RUNTIME | OF_LAB),
        ("requirements/runtime.txt", OF_TOOLS | OF_RUNTIME | OF_LAB),
        ("ops/tools/lab/run.py", OF_TOOLS | OF_RUNTIME | OF_LAB),
        ("ops/monitoring/grafana/new.py", OF_TOOLS | OF_RUNTIME | OF_LAB),
        ("tests/ops/tools/lab/test_run.py", OF_TOOLS | OF_RUNTIME | OF_LAB),
        ("ops/monitoring/grafana/dashboards/new.json", OF_TOOLS | OF_LAB),
        ("requirements/lab.txt", OF_TOOLS | OF_LAB),
        ("api/reads/listing.py", OF_RUNTIME),
        ("tests/api/test_list.py", OF_RUNTIME),
        ("gunicorn.conf.py", OF_RUNTIME | OF_LAB),
        ("ops/gunicorn/worker.py", OF_RUNTIME | OF_LAB),
        ("products/api.py", OF_LAB),
        ("ops/tools/lab/contenders/raw.py", OF_LAB),
        ("config/urls.py", set()),
    ],
)
def test_what_changed_is_tested(
    tree: Path, monkeypatch: pytest.MonkeyPatch, file: str, tested: set[str]
) -> None:
    """And with each the sample, which is about all."""
    monkeypatch.setenv("ALL", "1")
    skipped(monkeypatch)
    monkeypatch.delenv("ALL")
    (tree / file).parent.mkdir(parents=True, exist_ok=True)
    (tree / file).write_text("another\n")
    assert skipped(monkeypatch) == OF_ALL - OF_SAMPLE - tested
    assert skipped(monkeypatch) == OF_ALL


@pytest.mark.parametrize(
    ("change", "tested"),
    [
        (("config/settings.py", "METRICS_PORT = 9100", "METRICS_PORT = 0"), OF_RUNTIME | OF_LAB),
        (("config/settings.py", '    "api.apps.ApiConfig",\n', ""), OF_RUNTIME | OF_LAB),
        (("config/settings.py", "zoo.apps.ZooConfig", "orders.apps.OrdersConfig"), set()),
        (("config/settings.py", "RATES_URL", "WEATHER_URL"), set()),
        (("pyproject.toml", '"error"', '"ignore"'), OF_TOOLS | OF_RUNTIME | OF_LAB),
        (("pyproject.toml", '"sub10"\nversion = "0.1.0"', '"x"\nversion = "1"'), OF_TOOLS),
        (("requirements/runtime.txt", "requirements", "# via acme\nrequirements"), OF_TOOLS),
    ],
)
def test_what_is_a_clones_own_is_not_the_runtimes(
    tree: Path, monkeypatch: pytest.MonkeyPatch, change: tuple[str, str, str], tested: set[str]
) -> None:
    file, line, other = change
    monkeypatch.setenv("ALL", "1")
    skipped(monkeypatch)
    monkeypatch.delenv("ALL")
    text = (tree / file).read_text()
    assert line in text
    (tree / file).write_text(text.replace(line, other))
    assert skipped(monkeypatch) == OF_ALL - OF_SAMPLE - tested


def test_without_the_sample_its_tests_are_no_part(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL", "1")
    skipped(monkeypatch)
    monkeypatch.delenv("ALL")
    shutil.rmtree(tree / "products")
    passed = gate.PASSED.read_text()
    assert skipped(monkeypatch) == OF_TOOLS | OF_RUNTIME
    assert gate.PASSED.read_text() == passed


def test_tools_that_failed_are_tested_again(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Iterable[list[str]]) -> None:
        raise Failure("pytest failed")

    monkeypatch.setattr(gate, "_run", fail)
    with pytest.raises(Failure):
        gate.test()
    assert skipped(monkeypatch) == set()


@pytest.mark.parametrize(
    "inherited", [{}, {"DJANGO_SETTINGS_MODULE": "config.settings"}], ids=["shell", "gate"]
)
def test_its_line_works_in_a_shell(inherited: dict[str, str]) -> None:
    """Which has no SECRET_KEY."""
    servers = {name: os.environ[name] for name in ("PATH", "DATABASE_URL", "REDIS_URL")}
    command = [*gate.SETTINGS, sys.executable, "-m", "pytest", "--collect-only", "-q", "tests/test_prose.py"]
    done = subprocess.run(
        command, cwd=ROOT, env=servers | inherited, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout


@pytest.mark.parametrize("case", [(2, 0, "passed"), (2, 1, "failed"), (21, 0, "failed")])
def test_few_failures_are_run_again_alone(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    case: tuple[int, int, str],
) -> None:
    """Of thirty tests `failing` fail beside others, and the first `alone` of them without others, too."""
    failing, alone, outcome = case
    (tmp_path / "test_it.py").write_text(
        "import os, pytest\n"
        "@pytest.mark.parametrize('number', range(30))\n"
        "def test_it(number):\n"
        f"    assert number >= ({failing} if 'PYTEST_XDIST_WORKER' in os.environ else {alone})\n"
    )
    variables = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    servers = nullcontext()
    monkeypatch.setattr(gate, "Servers", lambda *_, **__: servers)
    monkeypatch.setattr("ops.tools.embedded.environment.complete", lambda _: variables)
    monkeypatch.setattr("ops.tools.embedded.environment.check", lambda _: None)
    command = [sys.executable, "-m", "pytest", "-n", "2", str(tmp_path)]
    if outcome == "failed":
        with pytest.raises(Failure, match="failed"):
            gate._run([command])
    else:
        gate._run([command])
    output = capfd.readouterr().out
    assert ("Alone:" in output) is (failing <= gate.RETRIED)
    assert ("passed alone:" in output) is (outcome == "passed")
