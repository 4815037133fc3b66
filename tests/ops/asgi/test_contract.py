"""What Django promises, on its own handler and on the lean one."""

import gc
import logging
import re
import threading
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
from django.core.signals import request_finished, request_started
from django.utils.log import request_logger
from pytest_django import Settings

from ops.asgi.handler import LeanASGIHandler
from ops.asgi.stock import StockASGIHandler
from tests.ops.asgi import views
from tests.ops.asgi.server import Serving, serve


def test_request(either: Serving) -> None:
    sent = {"Accept-Language": "de", "Content-Type": "text/plain"}
    answer = either.client.post("/state?a=%C3%A9", content=b"body", headers=sent)
    assert answer.headers["X-Answer"] == "é"
    assert answer.json() == {
        "method": "POST",
        "path": "/state",
        "info": "/state",
        "query": {"a": "é"},
        "body": "body",
        "route": "state",
        "urlconf": "tests.ops.asgi.views",
        "prefix": "/",
        "language": "de",
    }


def test_script_prefix(either: Serving, settings: Settings) -> None:
    settings.FORCE_SCRIPT_NAME = "/below"
    state = either.get("/below/state").json()
    assert (state["path"], state["info"], state["prefix"]) == ("/below/state", "/state", "/below/")


def test_large_body_and_cookie(either: Serving) -> None:
    answer = either.get("/cookie")
    assert (len(answer.content), answer.headers["Set-Cookie"]) == (200_000, "a=b; Path=/")


def test_upload(either: Serving, settings: Settings) -> None:
    settings.FILE_UPLOAD_MAX_MEMORY_SIZE = 1000
    answer = either.client.post("/upload", files={"small": b"x" * 10, "large": b"x" * 500_000})
    assert answer.json() == {"small": 10, "large": 500_000}


def test_too_much_data(either: Serving, settings: Settings) -> None:
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 3
    answer = either.client.post("/state", content=b"body")
    if isinstance(either.application, LeanASGIHandler):
        assert answer.json()["code"] == "content_too_large"
    else:
        assert answer.status_code == HTTPStatus.BAD_REQUEST


def test_bad_query_string(either: Serving) -> None:
    with either.send(b"GET /state?\xff HTTP/1.1\r\nHost: localhost\r\n\r\n") as connection:
        assert connection.recv(1000).startswith(b"HTTP/1.1 400 ")


def test_sync_view_runs_in_a_thread(either: Serving) -> None:
    assert either.get("/sync").text.startswith("ThreadPoolExecutor")


def test_async_stream(either: Serving) -> None:
    assert either.get("/stream").text == "0\n1\n2\n"


@pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume synchronous iterators")
def test_sync_stream_is_closed_in_a_thread(either: Serving) -> None:
    assert either.get("/sync_stream").text == "ab"
    (name,) = views.events
    assert name.startswith("closed in ThreadPoolExecutor")


@pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume synchronous iterators")
def test_file(either: Serving) -> None:
    assert either.get("/file").content == Path(views.__file__).read_bytes()


def test_unknown_path(either: Serving, settings: Settings) -> None:
    settings.DEBUG = True
    answer = either.get("/unknown")
    assert answer.status_code == HTTPStatus.NOT_FOUND
    assert "Using the URLconf defined in <code>tests.ops.asgi.views</code>" in answer.text


def test_exception(either: Serving, settings: Settings) -> None:
    answer = either.get("/failing")
    assert answer.status_code == HTTPStatus.INTERNAL_SERVER_ERROR
    assert "a message" not in answer.text
    settings.DEBUG = True
    assert re.search("ValueError at /failing.*a message", either.get("/failing").text, re.DOTALL)


@pytest.mark.parametrize("path", ["/empty", "/sync", "/missing", "/stream"])
def test_foreign_receivers(either: Serving, path: str) -> None:
    calls: list[Any] = []

    def receive(signal: Any, sender: Any, **named: Any) -> None:
        calls.append((signal, sender, set(named), threading.current_thread().name[:18]))

    for signal in (request_started, request_finished):
        signal.connect(receive)
    try:
        either.get(path)
    finally:
        for signal in (request_started, request_finished):
            signal.disconnect(receive)
    handler = type(either.application)
    assert calls == [
        (request_started, handler, {"scope"}, "ThreadPoolExecutor"),
        (request_finished, handler, set(), "ThreadPoolExecutor"),
    ]


@pytest.mark.parametrize("handler", [LeanASGIHandler, StockASGIHandler])
def test_a_refusal_by_if_match_is_one_request(
    handler: type, routes: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer that it takes the place of is closed with it, and in a thread where its closing may wait."""
    ended: list[str] = []

    def receive(**_: Any) -> None:
        ended.append("request_finished")

    def close() -> None:
        ended.append(threading.current_thread().name[:18])

    monkeypatch.setattr(views, "closers", [close])
    request_finished.connect(receive)
    try:
        with serve(handler(), monkeypatch) as serving:
            answer = serving.client.get("/closing", headers={"If-Match": '"another"'})
            serving.wait_until_ended()
    finally:
        request_finished.disconnect(receive)
    assert answer.status_code == 412
    assert ended == ["ThreadPoolExecutor", "request_finished"]


def test_error_is_logged_once(either: Serving, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "django.request")
    either.get("/missing")
    assert [record.message for record in caplog.records if record.name == "django.request"] == [
        "Not Found: /missing"
    ]


def test_slow_log_is_written_in_a_thread(either: Serving, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "django.request")
    threads: list[str] = []

    class Mail(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            threads.append(threading.current_thread().name)

    mail = Mail()
    request_logger.addHandler(mail)
    try:
        either.get("/missing")
    finally:
        request_logger.removeHandler(mail)
    (name,) = threads
    assert name.startswith("uvloop")  # the pool of the event loop, not its thread


def test_a_rendered_response_is_not_kept(either: Serving) -> None:
    assert either.get("/late").text == "rendered"
    gc.collect()
    assert not views.rendered


def test_pipelined_requests_share_no_thread(either: Serving) -> None:
    answers = b""
    with either.send(b"GET /sync HTTP/1.1\r\nHost: localhost\r\n\r\n" * 20) as connection:
        while len(re.findall(rb"ThreadPoolExecutor-\d+_\d", answers)) < 20:
            more = connection.recv(10_000)
            assert more, answers
            answers += more
    either.wait_until_ended(20)
    assert not either.errors
    assert len(set(re.findall(rb"ThreadPoolExecutor-\d+", answers))) == 20
