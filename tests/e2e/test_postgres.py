"""The service under load while Postgres ends its sessions, and while it is restarted."""

import asyncio
import json
import operator
import os
import time
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psycopg
import pytest
from django.db import connection

from tests.loops import until
from tests.service import PATIENCE, serve

pytestmark = [pytest.mark.django_db, pytest.mark.lean]

CLIENTS = 16
TERMINATED = 20
ENDED = "sessions-that-end"  # the application's name
PATHS = ("/api/products?limit=10", "/api/products/1", "/api/products?limit=100", "/api/products/0")


@pytest.fixture
def database(django_db_setup: None) -> str:
    """The URL of the database of tests."""
    return urlsplit(os.environ["DATABASE_URL"])._replace(path=f"/{connection.settings_dict['NAME']}").geturl()


def terminate(database: str) -> int:
    """End the sessions of this test's service, all at once; returns how many there were.

    Other services use the same database. One after another, a read could lose the connection that it runs on again.
    """
    sessions = "SELECT pid, pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = %s"
    with psycopg.connect(database, autocommit=True, application_name="tests") as admin:
        ended = [pid for pid, _ in admin.execute(sessions, [ENDED]).fetchall()]
        deadline = time.monotonic() + PATIENCE
        while admin.execute("SELECT pid FROM pg_stat_activity WHERE pid = ANY(%s)", [ended]).fetchall():
            assert time.monotonic() < deadline
    return len(ended)


def test_sessions_end_under_load(database: str, tmp_path: Path) -> None:
    """Twenty backends are terminated: every request has its answer, and the right one.

    A read runs once more, and not twice: each client has had two answers before the next sessions end.
    """

    async def load(client: httpx.AsyncClient, expected: dict[str, tuple[int, object]]) -> Counter[object]:
        found: Counter[object] = Counter()
        answered = [0] * CLIENTS

        async def end_sessions() -> None:
            ended = 0
            while ended < TERMINATED:
                ended += await asyncio.to_thread(terminate, database)
                least = [number + 2 for number in answered]
                await until(
                    lambda: all(map(operator.ge, answered, least)),  # noqa: B023  awaited at once
                    PATIENCE,
                )

        ending = asyncio.create_task(end_sessions())

        async def ask(client_number: int) -> None:
            number = client_number
            while not ending.done():
                path = PATHS[number % len(PATHS)]
                answer = await client.get(path)
                right = (answer.status_code, essence(answer)) == expected[path]
                found["right" if right else f"{path}: {answer.status_code} {answer.text[:200]}"] += 1
                answered[client_number] += 1
                number += 1

        await asyncio.gather(*map(ask, range(CLIENTS)))
        await ending
        return found

    async def run(address: str) -> Counter[object]:
        async with httpx.AsyncClient(base_url=address, timeout=PATIENCE) as client:
            answers = {path: await client.get(path) for path in PATHS}
            return await load(
                client, {path: (each.status_code, essence(each)) for path, each in answers.items()}
            )

    named = f"{database}{'&' if urlsplit(database).query else '?'}application_name={ENDED}"
    with serve({"DATABASE_URL": named}, tmp_path, workers=2) as service:
        found = asyncio.run(run(str(service.client.base_url)))
    assert set(found) == {"right"}, found
    assert found["right"] > CLIENTS


def essence(answer: httpx.Response) -> object:
    """An answer without the id of its request."""
    content = json.loads(answer.content)
    content.pop("instance", None)
    content.pop("request_id", None)
    return content
