"""A client that leaves: its request is cancelled, silently; and who else may cancel a request."""

import asyncio
from collections.abc import Iterator

import pytest

from ops.asgi.handler import LeanASGIHandler
from ops.asgi.types import Receive, Scope, Send
from tests.ops.asgi import views
from tests.ops.asgi.server import Serving, serve
from tests.ops.asgi.views import DEADLINE


def request(path: str) -> bytes:
    return f"GET /{path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()


@pytest.mark.parametrize("path", ["endless", "stubborn"])
def test_view_is_cancelled(either: Serving, path: str) -> None:
    connection = either.send(request(path))
    assert views.events["waiting"].wait(DEADLINE)
    connection.close()
    assert views.events["cancelled"].wait(DEADLINE)
    either.wait_until_ended()
    assert not either.errors


def test_stream_is_cancelled(either: Serving) -> None:
    connection = either.send(request("endless_stream"))
    while b"first" not in connection.recv(1000):
        pass
    connection.close()
    assert views.events["cancelled"].wait(DEADLINE)
    either.wait_until_ended()
    assert not either.errors


def test_sync_view_ends_in_its_thread(either: Serving) -> None:
    connection = either.send(request("held"))
    assert views.events["waiting"].wait(DEADLINE)
    connection.close()
    views.events["released"].set()
    either.wait_until_ended()
    assert views.events["ended"].is_set()
    assert not either.errors


def test_long_request_costs_one_task(lean: Serving) -> None:
    connection = lean.send(request("endless"))
    assert views.events["waiting"].wait(DEADLINE)
    connection.close()
    lean.wait_until_ended()
    assert (lean.tasks, lean.hops) == (1, 0)


@pytest.fixture
def impatient(routes: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Serving]:
    """The handler inside a deadline, which cancels the same task."""
    handler = LeanASGIHandler()

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        async with asyncio.timeout(0.5):
            await handler(scope, receive, send)

    with serve(application, monkeypatch) as serving:
        yield serving


def test_deadline_passes_through(impatient: Serving) -> None:
    with impatient.send(request("endless")):
        impatient.wait_until_ended()
    assert views.events["cancelled"].is_set()
    assert [type(error) for error in impatient.errors] == [TimeoutError]
