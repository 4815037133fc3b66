"""Medians and ratios of ways that are timed one after the other, and their tables."""

import json
from pathlib import Path

import pytest
from rich.console import Console

from ops.tools.lab import bulk
from ops.tools.lab.__main__ import main

MEASURED = [
    {"kind": kind, "way": way, "ms": ms}
    for round_ in ((10, 30, 5), (20, 40, 5), (40, 400, 5))
    for kind, way, ms in zip(
        ("insert", "insert", "update"), ("COPY", "save()", "UPDATE"), round_, strict=True
    )
]


def test_a_ratio_is_that_of_a_round_and_a_kind() -> None:
    copy, save, update = bulk.summarize(MEASURED)
    assert copy == {"kind": "insert", "way": "COPY", "ms": 20, "least": 10, "most": 40, "ratio": 1}
    assert (save["ms"], save["ratio"], update["ratio"]) == (40, 3, 1)


def test_a_table_of_each_kind(tmp_path: Path) -> None:
    console = Console(record=True, width=100)
    bulk.report(MEASURED, {"commits": "fsync on"}, tmp_path, console)
    text = console.export_text()
    assert text.index("insert of 1,000 rows") < text.index("save()") < text.index("update of 1,000 rows")
    assert len(json.loads((tmp_path / "results.json").read_text())["measurements"]) == 9


def test_no_resource_has_ways_to_write_many(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("ops.tools.lab.__main__.find", dict)
    assert main(["bulk"]) == 1
    assert "no scenario has ways to write many rows" in capsys.readouterr().err
