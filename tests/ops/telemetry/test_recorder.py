"""A worker's metrics reach their files, in time and at the end, and no failure of theirs ends the worker."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from ops.telemetry import recorder
from ops.telemetry.metrics import Registry
from ops.telemetry.recorder import record_metrics
from tests.ops.telemetry.test_metrics import scrape


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Registry:
    """The metrics of a worker whose second is short."""
    registry = Registry()
    monkeypatch.setattr(recorder, "metrics", registry)
    monkeypatch.setattr(recorder, "FLUSH_SECONDS", 0.01)
    monkeypatch.setenv(recorder.DIRECTORY, str(tmp_path))
    monkeypatch.setenv(recorder.SLOT, "1-0")
    return registry


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  nothing on this loop would set an event
            await asyncio.sleep(0.01)


def test_the_last_flush_is_at_the_end(registry: Registry, tmp_path: Path) -> None:
    count = registry.counter("a_total", "Text.").labels()

    async def worker() -> None:
        async with record_metrics():
            count.value = 1
            await until(lambda: scrape(tmp_path).get("a_total") == 1)
            count.value = 2

    asyncio.run(worker())
    assert scrape(tmp_path) == {"a_total": 2}


def test_a_sampler_that_fails_is_logged_once(
    registry: Registry, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    count = registry.counter("a_total", "Text.").labels()
    calls = 0

    def fail_at_first() -> None:
        nonlocal calls
        calls += 1
        if calls <= 3:
            raise ValueError("a sampler's")

    registry.register(fail_at_first)

    async def worker() -> None:
        async with record_metrics():
            count.value = 1
            await until(lambda: calls == 3)
            assert scrape(tmp_path) == {"a_total": 1}
            await until(lambda: calls > 5)

    asyncio.run(worker())
    assert [record.message for record in caplog.records] == ["This worker's metrics are not complete"]


def test_a_directory_that_is_gone_ends_nothing(registry: Registry, tmp_path: Path) -> None:
    registry.counter("a_total", "Text.").labels().value = 1
    (tmp_path / "counter_1-0.db").mkdir()

    async def worker() -> str:
        async with record_metrics():
            await asyncio.sleep(0)
            return "served"

    assert asyncio.run(worker()) == "served"


def test_without_a_slot_nothing_is_written(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(recorder.SLOT)
    registry.counter("a_total", "Text.").labels().value = 1

    async def worker() -> None:
        async with record_metrics():
            await asyncio.sleep(0)

    asyncio.run(worker())
    assert not [*tmp_path.iterdir()]
