"""What a request costs, counted: an async one no task, no thread and no spooled body."""

import gc
import tempfile
from http import HTTPStatus
from typing import Any

import pytest
from django.core.handlers.asgi import ASGIHandler
from django.test import Client
from django.urls import ResolverMatch, URLResolver

from tests.ops.asgi.server import Serving


@pytest.mark.parametrize("path", ["/empty", "/missing", "/state?a=b", "/stream", "/cookie"])
def test_async_view_takes_no_task_and_no_thread(lean: Serving, path: str) -> None:
    for _ in range(3):
        lean.get(path)
    assert (lean.tasks, lean.hops) == (0, 0)


def test_djangos_test_client_leaves_it_so(lean: Serving) -> None:
    Client().get("/sync")
    lean.get("/empty")
    assert (lean.tasks, lean.hops) == (0, 0)


def test_small_post_takes_no_task_and_no_thread(lean: Serving) -> None:
    assert lean.client.post("/state", content=b"body").json()["body"] == "body"
    lean.wait_until_ended()
    assert (lean.tasks, lean.hops) == (0, 0)


def test_body_of_one_message_is_not_spooled(lean: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    spooled: list[Any] = []
    spool = tempfile.SpooledTemporaryFile

    def spool_and_tell(**options: Any) -> Any:
        spooled.append(options)
        return spool(**options)

    monkeypatch.setattr(tempfile, "SpooledTemporaryFile", spool_and_tell)
    lean.get("/empty")
    lean.client.post("/state", content=b"body")
    assert not spooled
    sent = b"x" * 900_000  # uvicorn passes on 64 KiB at a time
    assert lean.client.post("/state", content=sent).json()["body"] == sent.decode()
    assert len(spooled) == 1


def test_thread_costs_only_who_needs_it(lean: Serving) -> None:
    assert lean.get("/sync").status_code == HTTPStatus.OK
    assert lean.hops == 2  # the view; its response is closed where its connections are
    assert lean.get("/empty").status_code == HTTPStatus.OK
    assert lean.hops == 2


def test_request_leaves_nothing_to_the_garbage_collector(lean: Serving) -> None:
    lean.get("/empty")
    gc.collect()
    gc.disable()
    try:
        for _ in range(50):
            lean.get("/empty")
        names = [type(found).__name__ for found in _cycles()]
    finally:
        gc.enable()
    assert "ASGIRequest" not in names
    assert "HttpResponse" not in names


def _cycles() -> list[Any]:
    gc.set_debug(gc.DEBUG_SAVEALL)
    gc.collect()
    gc.set_debug(0)
    found, gc.garbage[:] = list(gc.garbage), []
    return found


def test_a_route_is_resolved_once(lean: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    lean.get("/state")
    tried: list[str] = []
    resolve = URLResolver.resolve

    def resolve_and_tell(self: URLResolver, path: str) -> ResolverMatch:
        tried.append(path)
        return resolve(self, path)

    monkeypatch.setattr(URLResolver, "resolve", resolve_and_tell)
    assert lean.get("/state").json()["route"] == "state"
    assert tried == []
    for number in "123":
        assert lean.get(f"/state/{number}").text == number
    assert tried == ["/state/1"]


def test_the_counts_see_what_the_stock_handler_takes(either: Serving) -> None:
    either.get("/empty")
    stock = type(either.application) is ASGIHandler
    assert (either.tasks > 0, either.hops >= 2) == (stock, stock)
