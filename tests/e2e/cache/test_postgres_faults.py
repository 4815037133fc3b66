"""Without Postgres, cached answers are sent for as long as they may be; then, and only then, 503."""

import asyncio

import pytest

from tests.e2e.cache.client import Answer, load
from tests.e2e.cache.fleet import Fleet, until
from tests.e2e.cache.proxy import REFUSING
from tests.e2e.cache.urls import FRESH, STALE

PAGE = "/tests/quick/4"
TOLERANCE = 0.4  # seconds, of a busy machine


@pytest.mark.chaos("Postgres down 130 s")
@pytest.mark.parametrize(
    ("fault", "redis"), [({"door": REFUSING}, "without Redis"), ({"held": True}, "with Redis")]
)
def test_stale_if_error(workers: Fleet, fault: dict[str, object], redis: str) -> None:
    """Cached pages are answered, stale ones for as long as they may be; then, and only then, 503."""

    async def scenario() -> tuple[list[Answer], list[Answer]]:
        async with load(workers.addresses, [PAGE], 0.02) as answered:
            await asyncio.sleep(0.3)
            await asyncio.to_thread(fail)
            before = list(answered.answers)
            await asyncio.sleep(FRESH + STALE + 3 * TOLERANCE)
        assert not answered.errors
        return before, answered.answers

    def fail() -> None:
        workers.postgres.turn(**fault)
        if redis == "without Redis":
            workers.valkey.stop()

    before, answers = asyncio.run(scenario())
    computed = [answer.ended - int(answer.fields[b"age"]) for answer in before]
    assert {answer.status for answer in before} == {200}
    for answer in answers:
        if answer.ended < min(computed) + FRESH + STALE - TOLERANCE:
            assert answer.status == 200, answer
        elif answer.began > max(computed) + 1 + FRESH + STALE + TOLERANCE:
            assert_unavailable(answer)
    assert {answer.status for answer in answers} == {200, 503}
    if redis == "with Redis":
        assert any("ttl=-" in answer.how for answer in answers)

    if not workers.valkey.is_running:
        workers.valkey.start()
    value = workers.write_unheard(4)
    workers.postgres.clear()
    for member in workers.members:
        until(lambda m=member: m.get(PAGE).status_code == 200, "Postgres", 15.0)  # type: ignore[misc]
        assert member.get(PAGE).json()["demand_qty"] == value


def assert_unavailable(answer: Answer) -> None:
    assert answer.status == 503
    assert answer.fields[b"content-type"] == b"application/problem+json"
    assert b'"code":"database_unavailable"' in answer.body
    assert answer.fields[b"cache-control"] == b"no-store"
    assert answer.fields[b"retry-after"] == b"1"
