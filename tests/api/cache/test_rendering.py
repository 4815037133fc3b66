"""The application answers for all clients: the scope that it sees, and its end if the answer cannot be stored."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from django.core.signals import request_finished
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.urls import path
from pytest_django import Settings

from api.cache.policy import Target
from api.cache.rendering import MAX_BODY_BYTES, Answer, Unstorable, render
from ops.asgi.handler import LeanASGIHandler
from ops.asgi.stock import StockASGIHandler
from ops.asgi.types import Receive, Scope, Send
from tests.api.cache.harness import policy

pytestmark = pytest.mark.usefixtures("runner")
closed: list[str] = []


def target(**request: str) -> Target:
    return Target(policy(), "key", (), **request)


async def endless(request: HttpRequest) -> StreamingHttpResponse:
    async def pieces() -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"more"
        finally:
            closed.append("stream")

    return StreamingHttpResponse(pieces())


async def huge(request: HttpRequest) -> HttpResponse:
    response = HttpResponse(b"x" * (MAX_BODY_BYTES + 1))
    response._resource_closers.append(lambda: closed.append("response"))  # type: ignore[attr-defined]
    return response


async def nothing(request: HttpRequest) -> HttpResponse:
    return HttpResponse(status=204)


urlpatterns = [path("endless", endless), path("huge", huge), path("nothing", nothing)]


@pytest.mark.parametrize("handler", [LeanASGIHandler, StockASGIHandler])
async def test_an_answer_without_content_needs_no_length(settings: Settings, handler: type[Any]) -> None:
    settings.ROOT_URLCONF = __name__
    answer = await render(handler(), target(path="/nothing"))
    assert (answer.status, answer.body, answer.obstacle) == (204, b"", "")


@pytest.mark.parametrize("handler", [LeanASGIHandler, StockASGIHandler])
@pytest.mark.parametrize("name", ["endless", "huge"])
async def test_what_cannot_be_held_is_closed(settings: Settings, handler: type[Any], name: str) -> None:
    settings.ROOT_URLCONF = __name__
    closed.clear()
    with pytest.raises(Unstorable):
        await render(handler(), target(path=f"/{name}"))
    if name == "huge":
        assert closed == ["response"]
    assert len(asyncio.all_tasks()) == 1


async def test_a_request_that_is_over_is_said_to_be(settings: Settings) -> None:
    settings.ROOT_URLCONF = __name__
    finished: list[object] = []

    def finish(**_: Any) -> None:
        finished.append(1)

    request_finished.connect(finish)
    try:
        for handler in (LeanASGIHandler(), StockASGIHandler()):
            with pytest.raises(Unstorable):
                await render(handler, target(path="/endless"))
    finally:
        request_finished.disconnect(finish)
    assert len(finished) == 2


async def test_a_cancellation_is_one() -> None:
    began = asyncio.Event()

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        began.set()
        await asyncio.Event().wait()

    rendering = asyncio.create_task(render(application, target()))
    await began.wait()
    rendering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await rendering


async def test_a_cancellation_while_an_answer_is_refused() -> None:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await send({"type": "http.response.start", "status": 200, "headers": []})
        finally:
            rendering.cancel()
            await asyncio.sleep(0)

    rendering = asyncio.create_task(render(application, target()))
    with pytest.raises(asyncio.CancelledError):
        await rendering


async def test_the_application_sees_nobody() -> None:
    seen: list[Any] = []

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append((scope, await receive()))
        headers = [(b"Content-Length", b"2"), (b"X-A", b"b")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"a", "more_body": True})
        await send({"type": "http.response.body", "body": b"b"})

    answer = await render(application, target(root_path="/base", path="/a b", query="a=1"))
    assert answer == Answer(200, [(b"content-length", b"2"), (b"x-a", b"b")], b"ab")
    ((passed, message),) = seen
    assert (passed["method"], passed["scheme"], passed["query_string"]) == ("GET", "http", b"a=1")
    assert (passed["root_path"], passed["path"], passed["raw_path"]) == ("/base", "/base/a b", b"/base/a%20b")
    assert (passed["headers"], passed["client"], passed["server"]) == ([], None, None)
    assert message == {"type": "http.request", "body": b"", "more_body": False}
