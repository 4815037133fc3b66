"""The sync ORM's pool: whatever becomes of a request, it gets its connections back."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from ops.asgi.handler import LeanASGIHandler
from ops.asgi.types import Receive, Scope, Send
from tests.ops.asgi import views
from tests.ops.asgi.server import Serving, serve
from tests.ops.asgi.views import DEADLINE


def test_a_thousand_requests(lean: Serving, pool: views.Pool) -> None:
    paths = ["/orm", "/orm", "/orm_raising", "/orm"] * 250
    with ThreadPoolExecutor(4) as clients:
        codes = list(clients.map(lambda path: lean.client.get(path).status_code, paths))
    lean.wait_until_ended(len(paths))
    assert (codes.count(200), codes.count(500)) == (750, 250)
    pool.wait_until_returned()


def test_client_leaves_while_a_query_runs(either: Serving, pool: views.Pool) -> None:
    for _ in range(6):  # more than the pool has
        views.events["working"].clear()
        connection = either.send(b"GET /slow_orm HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert views.events["working"].wait(DEADLINE)
        connection.close()
        either.wait_until_ended()
    assert pool.lent == 0


def test_stream_that_fails(lean: Serving, pool: views.Pool) -> None:
    for _ in range(6):
        with lean.send(b"GET /orm_in_pieces HTTP/1.1\r\nHost: localhost\r\n\r\n") as connection:
            while connection.recv(1000):
                pass
        lean.wait_until_ended()
    assert len(lean.errors) == 6
    assert pool.lent == 0


@pytest.fixture
def impatient(routes: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Serving]:
    """The handler inside a deadline that ends while the query still runs."""
    handler = LeanASGIHandler()

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        async with asyncio.timeout(0.1):
            await handler(scope, receive, send)

    with serve(application, monkeypatch) as serving:
        yield serving


def test_deadline_ends_while_a_query_runs(impatient: Serving, pool: views.Pool) -> None:
    for _ in range(6):
        with impatient.send(b"GET /slow_orm HTTP/1.1\r\nHost: localhost\r\n\r\n"):
            impatient.wait_until_ended()
    assert {type(error) for error in impatient.errors} == {TimeoutError}
    pool.wait_until_returned()


def test_client_leaves_and_then_the_deadline_ends(impatient: Serving, pool: views.Pool) -> None:
    """The end of the request waits for the query, and is cancelled itself."""
    for _ in range(6):
        views.events["working"].clear()
        connection = impatient.send(b"GET /slow_orm HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert views.events["working"].wait(DEADLINE)
        connection.close()
        impatient.wait_until_ended()
    assert {type(error) for error in impatient.errors} == {TimeoutError}
    pool.wait_until_returned()
