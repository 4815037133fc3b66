"""Which tests `make test` runs: those of the tools only if a tool has changed, or all are asked for.

And which it runs twice: the few that failed beside others.
"""

import os
import sys
from collections.abc import Iterable
from contextlib import nullcontext
from pathlib import Path

import pytest

from ops.tools.embedded import gate
from ops.tools.embedded.console import Failure

OF_TOOLS, OF_RUNTIME = {*gate.WITHOUT_TOOLS}, {*gate.WITHOUT_RUNTIME}


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout whose gate runs nothing, and has other Pythons for nothing."""
    for file in (
        "ops/tools/lab/run.py",
        "tests/ops/tools/lab/test_run.py",
        "requirements/embedded.txt",
        "requirements/lab.txt",
        "api/reads/listing.py",
        "tests/api/test_list.py",
        "orders/api.py",
    ):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(file)
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


def test_tools_that_passed_are_not_tested_again(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert skipped(monkeypatch) == set()
    assert skipped(monkeypatch) == OF_TOOLS
    (tree / "ops/tools/lab/run.pyc").touch()
    assert skipped(monkeypatch) == OF_TOOLS
    monkeypatch.setenv("ALL", "1")
    assert skipped(monkeypatch) == set()


@pytest.mark.parametrize(
    "changed",
    [
        "ops/tools/lab/run.py",
        "ops/monitoring/grafana/new.py",
        "tests/ops/tools/lab/test_run.py",
        "requirements/lab.txt",
    ],
)
def test_tools_that_changed_are_tested(tree: Path, monkeypatch: pytest.MonkeyPatch, changed: str) -> None:
    skipped(monkeypatch)
    (tree / changed).parent.mkdir(parents=True, exist_ok=True)
    (tree / changed).write_text("another")
    assert skipped(monkeypatch) == set()
    assert skipped(monkeypatch) == OF_TOOLS


def test_tools_that_failed_are_tested_again(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Iterable[list[str]]) -> None:
        raise Failure("pytest failed")

    monkeypatch.setattr(gate, "_run", fail)
    with pytest.raises(Failure):
        gate.test()
    assert skipped(monkeypatch) == set()


def test_a_runtime_that_passed_is_not_tested_again(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has passed once all has; what others change in it, and not their resources, is tested."""
    assert skipped(monkeypatch) == set()
    assert not skipped(monkeypatch) & OF_RUNTIME  # not all has passed yet
    monkeypatch.setenv("ALL", "1")
    assert skipped(monkeypatch) == set()
    monkeypatch.delenv("ALL")
    assert skipped(monkeypatch) == OF_RUNTIME | OF_TOOLS
    (tree / "orders/api.py").write_text("another")
    assert skipped(monkeypatch) == OF_RUNTIME | OF_TOOLS
    monkeypatch.setenv("ALL", "runtime")
    assert skipped(monkeypatch) == OF_TOOLS
    monkeypatch.delenv("ALL")
    (tree / "tests/api/test_list.py").write_text("another")
    assert skipped(monkeypatch) == OF_TOOLS
    monkeypatch.setenv("ALL", "everything")
    with pytest.raises(Failure, match="ALL is 'everything', not 1 or runtime"):
        gate.test()


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
