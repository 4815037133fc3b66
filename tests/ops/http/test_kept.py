"""An upstream's content: fresh, stale or none; one call for all that wait; shared between workers."""

import asyncio
import json
import secrets
import time
from collections.abc import Iterator

import pytest
from django.core.cache import cache
from pydantic import BaseModel, Field

from ops.http import kept as module
from ops.http.client import Client
from ops.http.kept import Kept
from ops.http.upstream import CALLS, Upstream, UpstreamUnavailable
from tests.loops import until
from tests.upstream import Source, answers, hangs, source

WELL = answers(b'{"number": 7}')
FAILS = answers(b"", "500 Oops")
FRESH, STALE = 60.0, 3600.0


class Content(BaseModel):
    number: int = Field(gt=0)


@pytest.fixture
def other() -> Iterator[Source]:
    with source(WELL) as running:
        yield running


@pytest.fixture
def name() -> Iterator[str]:
    """Of the test alone, and gone afterwards."""
    name = secrets.token_hex(8)
    yield name
    cache.delete(f"upstream:{name}:")


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """For a machine that is busy with tests, and none between two calls."""
    monkeypatch.setattr(module, "CACHE_SECONDS", 5.0)
    monkeypatch.setattr(module, "PAUSE_SECONDS", 0.0)


def keep(url: str, name: str, timeout: float = 20.0) -> Kept[Content]:
    return Kept(Upstream(name, url, timeout=timeout), Content, fresh=FRESH, stale=STALE)


def let_age(kept: Kept[Content], seconds: float) -> None:
    """Let the content be older, for all workers."""
    kept._fetched -= seconds
    cache.delete(kept._key)


async def reason_of(kept: Kept[Content]) -> str:
    with pytest.raises(UpstreamUnavailable) as caught:
        await kept.get()
    return caught.value.reason


async def test_fresh_content_is_asked_for_once(client: Client, other: Source, name: str) -> None:
    kept = keep(other.url, name)
    for _ in range(3):
        value = await kept.get()
        assert (value.content.number, value.is_stale) == (7, False)
        assert 0 <= value.age < FRESH
    assert len(other.requests) == 1


async def test_old_content_is_renewed(client: Client, other: Source, name: str) -> None:
    kept = keep(other.url, name)
    await kept.get()
    other.behave = answers(b'{"number": 8}')
    let_age(kept, FRESH)
    assert (await kept.get()).content.number == 8


async def test_a_clock_that_was_set_back(client: Client, other: Source, name: str) -> None:
    kept = keep(other.url, name)
    await kept.get()
    let_age(kept, -3600)
    await kept.get()
    assert len(other.requests) == 2
    assert kept._age() < FRESH


async def test_stale_content_is_better_than_none(client: Client, other: Source, name: str) -> None:
    kept = keep(other.url, name)
    await kept.get()
    other.behave = FAILS
    let_age(kept, FRESH)
    value = await kept.get()
    assert (value.content.number, value.is_stale) == (7, True)
    assert value.age >= FRESH
    let_age(kept, STALE)
    assert await reason_of(kept) == "failed"
    other.behave = WELL
    assert not (await kept.get()).is_stale


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"nonsense", b"[]", b"{}", b'{"number": 0}', b'{"number": NaN}', b'{"number": 1', b"\xff"),
        b"[" * 60_000,
    ],
)
async def test_other_content_than_expected_is_not_used(
    client: Client, other: Source, name: str, content: bytes
) -> None:
    other.behave = answers(content)
    kept = keep(other.url, name)
    assert await reason_of(kept) == "invalid"
    assert CALLS.labels(name, "invalid").value == CALLS.labels(name, "2xx").value == 1
    other.behave = WELL
    await kept.get()
    other.behave = answers(content)
    let_age(kept, FRESH)
    assert (await kept.get()).is_stale


async def test_another_status_is_no_content(client: Client, other: Source, name: str) -> None:
    other.behave = answers(b'{"number": 7}', "404 Not Found")
    assert await reason_of(keep(other.url, name)) == "invalid"


async def test_without_a_url(client: Client, name: str) -> None:
    assert await reason_of(keep("", name)) == "unconfigured"


async def test_one_call_for_all_that_wait(client: Client, name: str) -> None:
    with source(hangs) as running:
        kept = keep(running.url, name)
        waiting = [asyncio.create_task(kept.get()) for _ in range(50)]
        await until(lambda: running.requests)
        waiting[0].cancel()  # a client that leaves does not end the call of the others
        await asyncio.wait(waiting[:1])
        assert not any(task.done() for task in waiting[1:])
        running.end()
        done = await asyncio.gather(*waiting[1:], return_exceptions=True)
        assert {type(each) for each in done} == {UpstreamUnavailable}
        assert len(running.requests) == 1


async def test_after_a_failure_there_is_a_pause(
    client: Client, other: Source, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PAUSE_SECONDS", 1000.0)
    other.behave = FAILS
    kept = keep(other.url, name)
    for _ in range(5):
        assert await reason_of(kept) == "failed"
    assert len(other.requests) == 1
    kept._not_before = 0
    other.behave = WELL
    assert (await kept.get()).content.number == 7


async def test_workers_share_it(client: Client, other: Source, name: str) -> None:
    await keep(other.url, name).get()
    assert (await keep(other.url, name).get()).content.number == 7
    assert len(other.requests) == 1
    other.behave = FAILS
    cache.set(f"upstream:{name}:", {"fetched": time.time() - FRESH, "content": '{"number": 9}'})
    value = await keep(other.url, name).get()  # a worker that has just started
    assert (value.content.number, value.is_stale) == (9, True)


@pytest.mark.parametrize(
    "shared",
    [
        *(7, None, [], {}, {"fetched": "x", "content": "{}"}, {"fetched": 1.0, "content": 1}),
        {"fetched": 4e9, "content": json.dumps({"number": 9})},  # by a clock that is wrong
    ],
)
async def test_what_is_shared_may_be_nonsense(
    client: Client, other: Source, name: str, shared: object
) -> None:
    cache.set(f"upstream:{name}:", shared)
    assert (await keep(other.url, name).get()).content.number == 7


async def test_it_does_without_a_cache(
    client: Client, other: Source, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(module, "cache", type("Broken", (), {"get": fail, "set": fail})())
    assert (await keep(other.url, name).get()).content.number == 7


def test_any_event_loop_will_do(other: Source, name: str) -> None:
    kept = keep(other.url, name)
    for _ in range(2):
        assert asyncio.run(kept.get()).content.number == 7
        let_age(kept, FRESH)
    assert len(other.requests) == 2
