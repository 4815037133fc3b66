"""Medians and ratios of exports, and their tables."""

import json
from pathlib import Path

import pytest
from rich.console import Console

from ops.tools.embedded.__main__ import needs_rows
from ops.tools.lab import exports
from ops.tools.lab.__main__ import main
from ops.tools.lab.exports import PSQL, Export

MEASURED = [
    Export(way, rows, seconds, 0.01, 1_000_000, 50_000_000, number)
    for number, (psql, other) in enumerate([(1.0, 1.5), (2.0, 2.5), (4.0, 40.0)])
    for rows in exports.SIZES[:2]
    for way, seconds in ((PSQL, psql), ("service", other))
]


def test_a_ratio_is_that_of_a_round_and_a_size() -> None:
    psql, service, *_ = exports.summarize(MEASURED)
    assert (psql["way"], psql["rows"], psql["seconds"], psql["ratio"]) == (PSQL, 1000, 2.0, 1.0)
    assert (service["seconds"], service["ratio"], service["memory"]) == (2.5, 1.5, 50_000_000)


def test_a_size_that_was_left_out_in_a_round() -> None:
    """The others are compared with psql's of their own rounds."""
    found = [each for each in MEASURED if (each.way, each.round) != ("service", 0)]
    service = next(each for each in exports.summarize(found) if each["way"] == "service")
    assert service["ratio"] == (2.5 / 2 + 40 / 4) / 2


def test_a_table_of_each_size(tmp_path: Path) -> None:
    console = Console(record=True, width=100)
    exports.report(MEASURED, {}, tmp_path, console)
    text = console.export_text()
    assert text.index("Export of 1,000 rows") < text.index("service") < text.index("Export of 10,000 rows")
    assert len(json.loads((tmp_path / "results.json").read_text())["measurements"]) == len(MEASURED)


def test_a_measurement_of_exports_needs_the_rows() -> None:
    assert needs_rows(["export", "--rounds", "1"])
    assert needs_rows(["disturbed"])
    assert not needs_rows(["export", "--help"])
    assert not needs_rows([])


def test_no_resource_has_ways_to_export(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("ops.tools.lab.__main__.find", dict)
    assert main(["export"]) == 1
    assert "no scenario has ways to export rows" in capsys.readouterr().err
