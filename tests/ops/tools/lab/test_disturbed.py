"""Medians of reads beside disturbances, and their table."""

import json
from pathlib import Path

import pytest
from rich.console import Console

from ops.tools.lab import disturbed
from ops.tools.lab.__main__ import main
from ops.tools.lab.disturbed import ALONE, Disturbed
from ops.tools.lab.measurement import Load

MEASURED = [
    Disturbed(
        round=number,
        name=name,
        load=Load(requests_per_second=200, p50=1.0, p99=p99 * number, errors=name != ALONE and number == 3),
        memory=number * 10**6,
    )
    for number in (1, 2, 3)
    for name, p99 in ((ALONE, 2.0), ("an export", 3.0))
]


def test_medians_of_the_rounds() -> None:
    alone, export = disturbed.summarize(MEASURED)
    assert (alone["p99"], alone["least_p99"], alone["most_p99"]) == (4.0, 2.0, 6.0)
    assert (alone["memory"], alone["faults"]) == (3 * 10**6, "")
    assert (export["name"], export["p99"]) == ("an export", 6.0)
    assert "1" in export["faults"]


def test_the_table(tmp_path: Path) -> None:
    console = Console(record=True, width=100)
    disturbed.report(MEASURED, 200, {}, tmp_path, console)
    assert "Reads at 200 a second" in console.export_text()
    assert len(json.loads((tmp_path / "results.json").read_text())["measurements"]) == len(MEASURED)


def test_no_resource_has_disturbances(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("ops.tools.lab.__main__.find", dict)
    assert main(["disturbed"]) == 1
    assert "no scenario has disturbances" in capsys.readouterr().err
