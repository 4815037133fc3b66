"""Locks between commands: a wait that lasts is explained."""

import threading
from pathlib import Path

import pytest

from ops.tools.embedded import locks
from ops.tools.embedded.console import until


def test_a_wait_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(locks, "SILENT_SECONDS", 0.05)
    path, done, said = tmp_path / "a.lock", threading.Event(), [""]

    def wait() -> None:
        with locks.turn(path, "sleeps"):
            done.set()

    def explained() -> bool:
        said[0] += capsys.readouterr().err
        return bool(said[0])

    holder = locks.hold(path)
    assert holder
    threading.Thread(target=wait).start()
    until(explained, "an explanation", 5)
    assert (said[0], done.is_set()) == ("waiting for another command, which sleeps\n", False)
    holder.close()
    assert done.wait(5)
    monkeypatch.setattr(locks, "SILENT_SECONDS", 60)
    wait()
    assert not explained() or said[0].count("waiting") == 1
