"""Each alert tells people what to do, and has been seen to fire; each entry of the runbook belongs to one."""

import os
import re
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.conf import settings

from ops.monitoring.grafana.boards import BOARDS
from ops.monitoring.grafana.runbook import entries
from ops.monitoring.prometheus import __main__ as promtool

from .rules import ALERTS, BUDGET

ENTRIES = entries()
LIMITS: Any = settings.LATENCY_BUDGET
PANELS = {
    f"{board.title} / {panel['title']}"
    for board in BOARDS
    for panels in board.rows.values()
    for panel in panels
}


def test_every_alert_has_an_entry_and_every_entry_its_alert() -> None:
    assert set(ENTRIES) == set(ALERTS)


@pytest.mark.parametrize("alert", sorted(ALERTS))
def test_an_alert_says_what_and_where_to_read_on(alert: str) -> None:
    rule = ALERTS[alert]
    assert rule["labels"]["severity"] in ("page", "ticket")
    assert set(rule["annotations"]) == {"summary", "description", "runbook"}
    assert rule["annotations"]["runbook"] == f"docs/runbook.md#{alert.lower()}"


@pytest.mark.parametrize("alert", sorted(ENTRIES))
def test_an_entry_says_all_that_is_needed(alert: str) -> None:
    parts = re.findall(r"^\*\*(.+?)\*\* ", ENTRIES[alert], flags=re.MULTILINE)
    assert parts == ["Means.", "See it.", "Do first.", "Usually."]
    assert f"**Means.** ({ALERTS[alert]['labels']['severity']}) " in ENTRIES[alert]


@pytest.mark.parametrize("alert", sorted(ENTRIES))
def test_the_panels_and_alerts_that_an_entry_names_are_there(alert: str) -> None:
    prose = " ".join(re.sub(r"```.*?```", "", ENTRIES[alert], flags=re.DOTALL).split())
    for board in BOARDS:
        for begun in re.findall(rf"(?=(\b{board.title} / .{{60}}))", f"{prose}{' ' * 60}"):
            assert any(begun.startswith(panel) for panel in PANELS), begun
    assert set(re.findall(r"\b[A-Z][a-z]+(?:[A-Z]\w+)+\b", prose)) <= {"PgBouncer", *ALERTS}


def test_the_limits_that_alert_are_those_of_the_settings() -> None:
    assert asdict(LIMITS) == BUDGET


def test_every_alert_is_seen_to_fire() -> None:
    """In ops/monitoring/prometheus/tests, which promtool runs."""
    cases = [
        case
        for path in promtool.HERE.glob("tests/*.yml")
        for case in yaml.safe_load(path.read_text())["tests"]
    ]
    fired = {
        expected["alertname"]
        for case in cases
        for expected in case.get("alert_rule_test", [])
        if expected["exp_alerts"]
    }
    assert fired == set(ALERTS)


@pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is not installed (Debian: prometheus)")
def test_the_gate_fails_with_a_rule_that_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(promtool.HERE, tmp_path, dirs_exist_ok=True)
    monkeypatch.setattr(promtool, "HERE", tmp_path)
    rules = tmp_path / "rules/dependencies.yml"
    rules.write_text(rules.read_text().replace("pg_up == 0", "pg_up == 1"))
    assert promtool.check() == 1


def test_a_promtool_that_is_killed_is_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "promtool").write_text("#!/bin/sh\nkill -9 $$\n")
    (tmp_path / "promtool").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert promtool.check() == 1


def test_the_gate_goes_on_without_promtool(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "")
    assert promtool.check() == 0
    assert "rules not checked" in capsys.readouterr().out
