"""A Redis that refuses some of the cache's commands is used as far as it goes, and no request waits for it."""

import asyncio
import logging
import time
from collections.abc import Iterator
from typing import Any

import pytest
from django.conf import settings
from pytest_django import Settings

from api.cache.changes import open_publisher
from api.cache.lookup import GIVE_BACK_SECONDS, GRACE_SECONDS, TRUST_SECONDS
from ops.checks.cache import check_redis_rights
from ops.redis import client as module
from ops.redis.client import connect
from ops.redis.health import ask_redis
from ops.redis.rights import find_lacking
from ops.telemetry.health import Health
from tests.api.cache.harness import DEADLINE, Worker, target, worker
from tests.e2e.cache.valkey import Valkey, private_valkey
from tests.loops import until

pytestmark = pytest.mark.usefixtures("runner")

OLD = ("GETEX", "HELLO", "EVAL", "EVALSHA", "COPY", "LMOVE")  # from 6.0 and 6.2, and scripts
DOCUMENTED = (
    f"-@all resetkeys resetchannels ~{settings.CACHE_PREFIX}:* &{settings.CACHE_PREFIX}:* "
    "+mget +set +expire +del +publish +subscribe +info +ping +select"
)
DOES_WITHOUT = {
    "-getex -@scripting -hello -client": [],
    "resetchannels": ["PUBLISH", "SUBSCRIBE"],
    "-info": ["INFO"],
    "-expire": ["EXPIRE"],
    "-get": [],
    # As docs/caching.md has it.
    DOCUMENTED: [],
    "-@all +mget +set +del": ["EXPIRE", "PUBLISH", "SUBSCRIBE", "INFO"],
}
UNUSED = {
    "-mget": ["MGET"],
    "-set": ["SET"],
    "-del": ["DEL"],
    "resetkeys ~other:*": ["MGET", "SET", "EXPIRE", "DEL"],
    "-@all": ["MGET", "SET", "EXPIRE", "DEL", "PUBLISH", "SUBSCRIBE", "INFO"],
}


@pytest.fixture(scope="module")
def server() -> Iterator[Valkey]:
    with private_valkey() as made:
        made.start()
        yield made


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine is busy with tests."""
    monkeypatch.setattr(module, "TIMEOUT_SECONDS", 5.0)
    monkeypatch.setattr(module, "BACKGROUND_TIMEOUT_SECONDS", 5.0)


@pytest.fixture
def rights(server: Valkey, settings: Settings, request: pytest.FixtureRequest) -> str:
    """The rights that the parameter leaves the worker's user."""
    server.client.flushall()
    client: Any = server.client
    client.execute_command(
        *("ACL", "SETUSER", "web", "reset", "on", ">secret", "~*", "&*", "+@all", *request.param.split())
    )
    settings.REDIS_URL = f"unix://web:secret@{server.socket}?db=0"
    return str(request.param)


async def lacking() -> list[str]:
    async with connect(5.0) as redis:
        return await find_lacking(redis)


@pytest.mark.parametrize("rights", [f"resetchannels &{settings.CACHE_PREFIX}:probe"], indirect=True)
async def test_the_question_is_not_heard_by_workers(rights: str) -> None:
    """One that publishes a change would wait for a confirmation of this listener, and mark it as silent."""
    assert await lacking() == []


async def ask(each: Worker) -> tuple[str, str, bool]:
    """Outcome, tier, and whether it is said to be stored."""
    if held := each.lookup.in_memory(target()):
        return held[1], "l1", False
    found = await each.lookup.find(target())
    await each.settle()
    return found.outcome, found.tier, found.is_shared


@pytest.mark.parametrize("rights", DOES_WITHOUT, indirect=True)
async def test_does_without(rights: str, server: Valkey) -> None:
    assert await lacking() == DOES_WITHOUT[rights]
    async with worker() as one, worker() as two, worker() as three:
        assert await ask(one) == ("miss", "none", True)
        assert await ask(two) == ("hit", "l2", False)
        assert not server.client.keys("*:lock:*")
        await one.lookup.shared.invalidate(["shop.product"])
        one.lookup.invalidate(["shop.product"])
        began = time.monotonic()
        assert await ask(one) == ("miss", "none", True)
        assert await ask(three) == ("hit", "l2", False)
        assert time.monotonic() - began < 0.5  # a lock that stays would be waited for a second
        assert not one.lookup.shared.client.breaker.failures


@pytest.mark.parametrize("rights", UNUSED, indirect=True)
async def test_goes_unused(rights: str, server: Valkey) -> None:
    """And no answer says that it is stored."""
    assert await lacking() == UNUSED[rights]
    async with worker() as one, worker() as two:
        if rights == "-del":  # then it is not relied on, which a beat finds out
            await until(lambda: one.lookup.shared.client.breaker.is_open)
            await until(lambda: two.lookup.shared.client.breaker.is_open)
        began = time.monotonic()
        for each in (one, two):
            for _ in range(3):
                assert await ask(each) in [("miss", "none", False), ("hit", "l1", False)]
                each.memory.clear()
        assert time.monotonic() - began < 0.5
        assert one.origin.calls == 3
        assert not server.client.keys("*:entry:*")


@pytest.mark.parametrize("status", [200, 404])
@pytest.mark.parametrize("rights", ["-del"], indirect=True)
async def test_a_lock_that_it_refuses_to_delete_goes_once_it_does_not(
    rights: str, server: Valkey, status: int
) -> None:
    client: Any = server.client
    async with worker() as one:
        one.origin.status = status
        await one.get(target(cost=DEADLINE))
        assert client.keys("*:lock:*")
        client.execute_command("ACL", "SETUSER", "web", "+del")
        await until(lambda: not client.keys("*:lock:*"), 10 * GIVE_BACK_SECONDS)


@pytest.mark.parametrize("rights", ["resetchannels", "-mget", "-del"], indirect=True)
async def test_it_is_said_once_and_connections_are_few(
    rights: str, server: Valkey, caplog: pytest.LogCaptureFixture
) -> None:
    def opened() -> int:
        return int(server.client.info("stats")["total_connections_received"])

    caplog.set_level(logging.WARNING)
    async with worker() as one, open_publisher(one.lookup):
        before = opened()
        deadline = asyncio.get_running_loop().time() + 2.0
        while asyncio.get_running_loop().time() < deadline:  # as requests do, of which there are always some
            await ask(one)
            one.memory.clear()
            await asyncio.sleep(0.05)
        assert opened() - before < 10
    said = [record.getMessage() for record in caplog.records]
    missing = ", ".join(DOES_WITHOUT.get(rights) or UNUSED[rights])
    assert sum(line.startswith(f"Redis refuses {missing} to the page cache: ") for line in said) == 1
    assert len(said) <= 2  # and that it is left alone, where it is of no use


@pytest.mark.parametrize("rights", ["resetchannels"], indirect=True)
async def test_without_messages_a_change_is_noticed_in_time(rights: str) -> None:
    async with worker() as one, worker() as two, open_publisher(two.lookup):
        await ask(one)
        await ask(two)
        await one.lookup.shared.invalidate(["shop.product"])
        began = time.monotonic()
        await until(lambda: not two.lookup.in_memory(target()))
        assert (await ask(two))[0] == "miss"
        assert time.monotonic() - began < TRUST_SECONDS + GRACE_SECONDS + 0.3


@pytest.mark.parametrize("rights", ["resetchannels", "-mget"], indirect=True)
async def test_health_and_the_system_checks_name_it(rights: str, settings: Settings) -> None:
    settings.PAGE_CACHE = "on"
    missing = DOES_WITHOUT.get(rights) or UNUSED[rights]
    report = await Health({}, redis=ask_redis).report()
    assert report["status"] == "ok"  # the service does its work
    assert (report["redis"]["status"], report["redis"]["refuses"]) == ("degraded", missing)
    [message] = await asyncio.to_thread(check_redis_rights)
    assert message.id == "ops.W052"
    assert message.msg.startswith(f"Redis refuses {', '.join(missing)} to the page cache")
    settings.PAGE_CACHE = "off"
    assert await asyncio.to_thread(check_redis_rights) == []
    assert (await Health({}, redis=ask_redis).report())["redis"]["status"] == "ok"


async def test_an_old_redis(settings: Settings) -> None:
    """Of before 6.0: without its protocol and later commands."""
    with private_valkey() as old:
        renamed: list[Any] = [word for name in OLD for word in ("--rename-command", name, "")]
        old.client.connection_pool.connection_kwargs["protocol"] = 2
        old.start(*renamed)
        settings.REDIS_URL = f"unix://{old.socket}?db=0"
        assert await lacking() == []
        async with worker() as one, worker() as two, open_publisher(two.lookup) as publisher:
            await until(lambda: publisher.subscribed)
            assert await ask(one) == ("miss", "none", True)
            assert await ask(two) == ("hit", "l2", False)
            await one.lookup.shared.invalidate(["shop.product"])
            await until(lambda: len(two.memory) == 0)
