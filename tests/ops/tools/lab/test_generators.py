"""What wrk and k6 print, read as figures, and what wrk sends. The files in captured/ are words of real runs."""

import json
import shutil
from itertools import count
from pathlib import Path

import pytest

from ops.tools.lab import k6, wrk
from ops.tools.lab.failure import LabError
from ops.tools.lab.measurement import Load
from ops.tools.lab.scenarios import Request
from tests.ops.tools.lab.listener import OK, server

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


@pytest.mark.skipif(not shutil.which("wrk"), reason="wrk is not installed")
def test_wrk_sends_all_requests_in_turn(tmp_path: Path) -> None:
    """Bytes as they are, whatever is in a body; one that closes is no error."""
    asked: list[bytes] = []
    numbers = count()

    def answer(text: bytes) -> bytes:
        asked.append(text)
        if b"Connection: close" in text:
            return OK.replace(b"OK", b"OK\r\nconnection: close", 1)
        return OK if next(numbers) % 100 else OK.replace(b"200", b"404")

    requests = [
        Request("/a"),
        Request("/b", "PUT", '{"a":"1\\n2"}'),
        Request("/c", "DELETE", closes=True),
        Request("/d", "POST", "7\n8"),
    ]
    with server(answer) as url:
        load = wrk.run(url, requests, 1, connections=1, scratch=tmp_path, headers="X-API-Key: k\r\n")
    host = url.removeprefix("http://")
    wires = [request.wire(host, "X-API-Key: k\r\n") for request in requests]
    at = wires.index(asked[0])
    assert asked[:8] == (wires[at:] + wires + wires)[:8]
    assert [wire.count(b"X-API-Key") for wire in wires] == [0, 1, 1, 1]
    assert 0 < load.errors <= len(asked) / 100 + 2
