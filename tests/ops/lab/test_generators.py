"""What wrk and k6 print, read as figures. The files in captured/ are their own words of real runs."""

import json
from pathlib import Path

import pytest

from ops.lab import k6, wrk
from ops.lab.failure import LabError
from ops.lab.measurement import Load

CAPTURED = Path(__file__).with_name("captured")


@pytest.mark.parametrize(
    ("run", "expected"),
    [
        ("ok", Load(requests_per_second=16157.81, p50=1.23, p99=7.59)),
        ("slow", Load(requests_per_second=21.22, p50=1050, p99=1050)),
        ("mixed", Load(requests_per_second=19128.05, p50=1.14, p99=8.98, errors=28614)),
        ("sockets", Load(requests_per_second=37637.46, p50=0.138, p99=15.51, errors=1541)),
    ],
)
def test_wrk(run: str, expected: Load) -> None:
    assert wrk.parse((CAPTURED / f"wrk-{run}.txt").read_text()) == expected


def test_wrk_without_an_answer_is_no_figure() -> None:
    with pytest.raises(LabError, match="wrk had no answer"):
        wrk.parse((CAPTURED / "wrk-hang.txt").read_text())


@pytest.mark.parametrize(
    ("run", "errors", "dropped", "latencies"),
    [("failed", 54, 0, (0.427, 0.652, 1.915)), ("dropped", 50, 71, (5000.337, 5001.248, 5001.650))],
)
def test_k6(run: str, errors: int, dropped: int, latencies: tuple[float, ...]) -> None:
    load = k6.parse(json.loads((CAPTURED / f"k6-{run}.json").read_text()))
    assert (load.errors, load.dropped) == (errors, dropped)
    assert (load.p50, load.p95, load.p99) == pytest.approx(latencies, abs=0.001)


def test_wrk_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LabError, match="apt install wrk"):
        wrk.executable()
