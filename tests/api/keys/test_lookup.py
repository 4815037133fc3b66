"""A worker's memory of keys: bounded, read again in time, never older than a change that was heard of."""

import asyncio
import time
from io import BytesIO
from typing import Any, cast

import pytest
from asgiref.sync import async_to_sync
from django.core.handlers.asgi import ASGIRequest
from django.test import Client
from django.utils import timezone
from psycopg import OperationalError
from pytest_django import Settings

from api.auth import IDENTITY, Authenticated, Identity, credential_of, credential_of_fields, scope
from api.cache import changes
from api.keys import lookup
from api.keys.lookup import REFRESH_SECONDS, TTL_SECONDS, USED_SECONDS, Memory, Row, authenticate
from api.keys.minting import KEY, digest_of, mint
from api.keys.models import ApiKey
from api.limits import RateLimits
from ops.asgi.types import Scope
from ops.redis.rates import RateLimit
from tests.api.cache.harness import Clock

pytestmark = pytest.mark.django_db(transaction=False)


class Table:
    """In the place of the database: its rows by prefix, and the lookups that came."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, Any]] = {}
        self.asked: list[str] = []
        self.error: Exception | None = None
        self.released = asyncio.Event()
        self.released.set()

    def add(self, **values: Any) -> str:
        key, prefix = mint()
        own = {"id": len(self.rows), "name": "n", "digest": digest_of(key), "scopes": "a b"}
        times = dict.fromkeys(("time_expires", "time_revoked"), None)
        self.rows[prefix] = own | times | {"time_used": timezone.now().isoformat()} | values
        return key

    async def read(self, prefix: str) -> Row | None:
        self.asked.append(prefix)
        found, read = dict(self.rows.get(prefix, {})), lookup.time.monotonic()  # type: ignore[attr-defined]  # the test's clock
        await self.released.wait()
        if self.error:
            raise self.error
        return Row(found, read) if found else None


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(lookup, "time", made)
    return made


@pytest.fixture
def table(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Table:
    made = Table()
    monkeypatch.setattr(lookup, "read", made.read)
    return made


@pytest.fixture
def serving() -> Any:
    """Run a scenario as in a served worker, with the worker's memory."""

    def run(scenario: Any) -> None:
        async def worker() -> None:
            async with lookup.remember_keys(), asyncio.timeout(10):
                await scenario(lookup.memories[asyncio.get_running_loop()])

        asyncio.run(worker())
        assert lookup.memories == {}
        assert changes.listeners == []

    return run


async def settle(memory: Memory) -> None:
    while memory.tasks:
        await asyncio.wait([*memory.tasks])


def test_a_row_is_read_once_and_again_in_the_background(serving: Any, table: Table, clock: Clock) -> None:
    key = table.add()

    async def scenario(memory: Memory) -> None:
        for _ in range(3):
            identity = await authenticate(key)
            assert identity
            assert (identity.name, {*identity.scopes}) == ("n", {"a", "b"})
        assert len(table.asked) == 1
        clock.ahead += REFRESH_SECONDS
        table.released.clear()
        for _ in range(3):  # none of them waits
            assert await authenticate(key)
        await asyncio.sleep(0)
        assert len(table.asked) == 2
        table.released.set()
        await settle(memory)
        clock.ahead += TTL_SECONDS - 0.1
        assert await authenticate(key)
        await settle(memory)
        assert len(table.asked) == 3

    serving(scenario)


def test_an_old_row_is_not_used(serving: Any, table: Table, clock: Clock) -> None:
    key = table.add()

    async def scenario(memory: Memory) -> None:
        assert await authenticate(key)
        table.error = OperationalError("away")
        clock.ahead += TTL_SECONDS - 0.01
        assert await authenticate(key)  # though the refresh fails
        await settle(memory)
        clock.ahead += 0.01
        with pytest.raises(OperationalError):
            await authenticate(key)
        table.error = None
        [row] = table.rows.values()
        row["time_revoked"] = timezone.now().isoformat()
        assert await authenticate(key) is None

    serving(scenario)


def test_a_change_counts_at_once_even_for_rows_on_their_way(serving: Any, table: Table) -> None:
    key, unknown = table.add(), mint()[0]

    async def scenario(memory: Memory) -> None:
        assert await authenticate(key)
        assert await authenticate(unknown) is None
        memory.hear(["shop.product"])
        assert await authenticate(key)
        assert len(table.asked) == 2
        table.released.clear()
        memory.hear(["api_keys.apikey", "api_keys.apikey:*"])
        waiting = asyncio.create_task(authenticate(key))
        for _ in range(3):
            await asyncio.sleep(0)
        [row] = table.rows.values()
        row["time_revoked"] = timezone.now().isoformat()
        memory.hear(["api_keys.apikey"])
        later = asyncio.create_task(authenticate(key))  # shares no read that began before the change
        for _ in range(3):
            await asyncio.sleep(0)
        table.released.set()
        assert await waiting  # it was asked for before
        assert await later is None
        assert await authenticate(key) is None

    serving(scenario)


def test_requests_for_one_key_share_a_statement(serving: Any, table: Table) -> None:
    key, other = table.add(), table.add()

    async def scenario(memory: Memory) -> None:
        table.released.clear()
        waiting = [asyncio.create_task(authenticate(key)) for _ in range(50)]
        await asyncio.sleep(0)
        waiting[0].cancel()  # the one that began it
        await asyncio.sleep(0)
        table.released.set()
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert isinstance(results[0], asyncio.CancelledError)
        assert all(getattr(result, "name", "") == "n" for result in results[1:])
        assert len(table.asked) == 1

        table.error = OperationalError("away")
        results = await asyncio.gather(*[authenticate(other) for _ in range(50)], return_exceptions=True)
        assert {type(result) for result in results} == {OperationalError}
        assert len(table.asked) == 2
        table.error = None
        assert await authenticate(other)
        await settle(memory)
        assert (memory._reading, memory._in_background) == ({}, 0)

    serving(scenario)


def test_unknown_keys_cost_a_statement_once_and_bounded_memory(
    serving: Any, table: Table, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookup, "MAX_UNKNOWN", 10)
    monkeypatch.setattr(lookup, "MAX_ROWS", 5)
    good = table.add()
    bad = [mint()[0] for _ in range(30)]

    async def scenario(memory: Memory) -> None:
        assert await authenticate(good)
        for key in bad:
            assert await authenticate(key) is None
        assert len(memory._unknown) == 10
        asked = len(table.asked)
        for key in bad[-10:]:
            assert await authenticate(key) is None
        assert await authenticate(good)  # no number of bad ones has pushed it out
        assert len(table.asked) == asked
        for key in [table.add() for _ in range(20)]:
            assert await authenticate(key)
        assert len(memory._rows) == 5
        clock.ahead += TTL_SECONDS
        assert await authenticate(bad[-1]) is None
        assert table.asked[-1] == bad[-1].split("_")[1]

    serving(scenario)


@pytest.mark.chaos("API key: missing, wrong, revoked, expired, near miss")
def test_each_refusal_takes_the_same_steps(
    serving: Any, table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each refusal takes the same steps: one digest of a text of bounded length, one comparison in constant time."""
    now = timezone.now().isoformat()
    good = table.add()
    wrong = good[:-1] + ("a" if good[-1] == "b" else "b")
    keys = [good, wrong, table.add(time_expires=now), table.add(time_revoked=now), mint()[0]]
    steps: list[str] = []

    def noted(name: str) -> None:
        function = getattr(lookup, name)

        def call(*arguments: Any) -> Any:
            steps.append(name)
            return function(*arguments)

        monkeypatch.setattr(lookup, name, call)

    noted("digest_of")
    noted("compare_digest")

    async def scenario(memory: Memory) -> None:
        taken = []
        for key in keys:
            steps.clear()
            assert bool(await authenticate(key)) is (key == good)
            taken.append(tuple(steps))
        assert {*taken} == {("digest_of", "compare_digest")}
        steps.clear()
        for text in ("", "x", good + "x", "x" * 4096, good.replace("_", "-"), good + "\n", "é" * 90):
            assert await authenticate(text) is None
        assert steps == []

    serving(scenario)
    assert all(KEY.fullmatch(key) for key in keys)


def test_the_use_is_noted_coarsely(serving: Any, table: Table, clock: Clock) -> None:
    key = table.add(time_used=None)
    noted = []

    async def scenario(memory: Memory) -> None:
        async def write(key: int) -> None:
            noted.append(key)

        memory._write_use = write  # type: ignore[method-assign]
        for _ in range(3):
            assert await authenticate(key)
        await settle(memory)
        assert len(noted) == 1
        [row] = table.rows.values()
        row["time_used"] = timezone.now().isoformat()
        clock.ahead += USED_SECONDS + 1
        for _ in range(3):
            assert await authenticate(key)
        await settle(memory)
        assert len(noted) == 2

    serving(scenario)


def test_another_function_in_place_of_keys(client: Client, settings: Settings) -> None:
    settings.ROOT_URLCONF = "tests.api.keys.urls"
    settings.AUTHENTICATE = "tests.api.keys.urls.authenticate_token"
    fields = {"Authorization": "Bearer ann:orders:read,orders:write"}
    told = {"name": "ann", "scopes": ["orders:read", "orders:write"]}
    for target in ("/keys/orders", "/keys/orders/sync"):  # an async view, and a sync one
        assert client.post(target, headers=fields).json() == told
        assert client.post(target, headers={"Authorization": "Bearer ann:x"}).status_code == 403
        assert client.post(target, headers={"Authorization": "Bearer ann"}).status_code == 401
    assert (
        client.get("/keys/anyone", headers={"Authorization": f"Bearer ann:{4097 * 'x'}"}).status_code == 401
    )


def test_outside_of_a_worker_nothing_is_remembered() -> None:
    """On Django's own connection, in the test's transaction."""
    key, prefix = mint()
    made = ApiKey.objects.create(
        name="n", prefix=prefix, digest=digest_of(key), scopes="a", time_created=timezone.now()
    )
    identity = async_to_sync(authenticate)(key)
    assert identity
    assert identity.scopes == {"a"}
    made.time_revoked = timezone.now()
    made.save()
    assert async_to_sync(authenticate)(key) is None
    assert async_to_sync(authenticate)(mint()[0]) is None


@pytest.mark.parametrize(
    "fields",
    [
        [("Authorization", "Bearer a"), ("X-API-Key", "b")],
        [("Authorization", "bearer  a ")],
        [("X-API-Key", "b")],
        [("Authorization", ""), ("Authorization", "Bearer a")],
        [("Authorization", "Bearer a"), ("Authorization", "")],
        [("X-API-Key", "b"), ("X-API-Key", "")],
        [("X-API-Key", ""), ("X-API-Key", "")],
        [],
    ],
)
def test_a_layer_reads_the_credential_as_an_endpoint_does(fields: list[tuple[str, str]]) -> None:
    headers = [(name.lower().encode(), value.encode()) for name, value in fields]
    scope = {"method": "GET", "path": "/", "query_string": b"", "headers": headers}
    assert credential_of_fields(headers) == credential_of(ASGIRequest(scope, BytesIO()))


def asked(found: object) -> ASGIRequest:
    scope = {"method": "GET", "path": "/", "query_string": b"", "headers": [], IDENTITY: found}
    return ASGIRequest(scope, BytesIO())


def test_an_endpoint_takes_what_a_layer_has_found_for_a_moment() -> None:
    """A client that sends its content slowly may have lost its key meanwhile."""
    known, error = Identity("shop", frozenset(["a"])), OperationalError()
    check = async_to_sync(scope("a"))
    now = time.monotonic()
    assert check(asked(Authenticated(known, now + 60))) is known
    with pytest.raises(OperationalError):
        check(asked(Authenticated(error, now + 60)))
    for result in (known, error):
        assert check(asked(Authenticated(result, now - 1))) is None  # the request has no credential


def test_a_look_up_that_fails_is_handed_on(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> None:
    """Once is enough where Postgres is frozen: it takes a second."""
    error = OperationalError()
    seen: list[object] = []

    async def fail(_credential: str) -> None:
        raise error

    async def show(scope: Scope, *_: object) -> None:
        seen.append(scope[IDENTITY].result)

    async def post() -> None:
        layer = RateLimits(show)
        fields = [(b"x-api-key", b"k")]
        request = {"type": "http", "method": "POST", "path": "/nowhere", "headers": fields, "client": None}
        async with layer.counting():
            await layer(request, cast("Any", None), cast("Any", None))

    settings.RATE_LIMITS = {"write": RateLimit(100, 1), "read": None, "bulk": None}
    monkeypatch.setattr("api.limits.authenticate", fail)
    asyncio.run(post())
    assert seen == [error]
