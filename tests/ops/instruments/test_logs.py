"""Lines of a log: one form, no secret, no flood. Most of it on a real service."""

import json
import logging
import os
import signal
import sys
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from ops.instruments import logs
from ops.instruments.logs import BURST, Bounded, Formatter, passwords_of
from ops.instruments.stopwatch import Stopwatch, current
from tests.ops.instruments.conftest import Instrumented, Start, eventually
from tests.service import PATIENCE

SECRETS = {
    "SECRET_KEY": "s3cret-of-the-key-" + "0123456789abcdef" * 2,
    "DATABASE": "s3cret/of\"the'base%",
    "REDIS": "s3cret,of the@cache",
}
SENT = {
    "Authorization": "Bearer s3cret-of-a-client.0123456789",
    "X-API-Key": "s3cret-of-a-client-key",
    "Cookie": "sessionid=s3cret-of-a-session; csrftoken=s3cret-too",
}


def lines(running: Instrumented) -> list[dict[str, Any]]:
    return [json.loads(line) for line in running.service.log.read_text().splitlines()]


def stop(running: Instrumented) -> None:
    """A line is written after its answer was sent: a service that has ended has written all of them."""
    running.service.process.terminate()
    running.service.process.wait(PATIENCE)


def failing(running: Instrumented, **headers: str) -> httpx.Response:
    """The database of the environment has no products: an error that nobody expects, with a traceback."""
    return running.client.get("/api/products?token=s3cret-in-the-query", headers=headers)


@pytest.mark.parametrize("level", ["info", "debug"])
@pytest.mark.parametrize("form", ["json", "console"])
def test_no_secret_of_a_real_run_is_logged(start: Start, level: str, form: str) -> None:
    scheme, _, rest = os.environ["DATABASE_URL"].partition("://")
    password = quote(SECRETS["DATABASE"], safe="")
    user, _, where = rest.partition("@")
    running = start(
        DATABASE_URL=f"{scheme}://{user.partition(':')[0]}:{password}@{where}",
        REDIS_URL=f"redis://:{quote(SECRETS['REDIS'], safe='')}@127.0.0.1:1/0",
        SECRET_KEY=SECRETS["SECRET_KEY"],
        LOG_LEVEL=level,
        LOG_FORMAT=form,
        ACCESS_LOG="1",
    )
    answer = failing(running, **SENT)
    assert answer.status_code == 422  # the token is no parameter
    assert running.client.get("/api/products", headers=SENT).status_code == 500
    assert running.client.get("/healthz", headers=SENT).status_code == 503
    running.client.post("/api/products", content=b"s3cret-body", headers=SENT)
    running.client.get("/livez", headers=SENT | {"Host": "s3cret-host"})
    for secret in SECRETS.values():  # in what is logged of every request
        running.client.get(f"/{quote(secret)}")
    for worker in running.workers:
        os.kill(worker, signal.SIGTERM)
    stop(running)
    log = running.service.log.read_text()
    assert "UndefinedTable" in log
    assert "***" in log
    assert "s3cret" not in log


def test_lines_are_json_and_say_what_happened(start: Start) -> None:
    running = start(ACCESS_LOG="1")
    answer = running.client.get("/api/products")
    name = answer.headers["X-Request-ID"]
    assert answer.status_code == 500
    running.client.get("/livez?a=b")
    stop(running)
    logged = lines(running)
    assert all({"timestamp", "level", "logger", "event", "pid"} <= line.keys() for line in logged)
    assert {"gunicorn.error", "uvicorn.error", "django.request", "ops.request", "ops.access"} <= {
        line["logger"] for line in logged
    }
    about = [line for line in logged if line.get("request_id") == name]
    (django,) = (line for line in about if line["logger"] == "django.request")
    assert "UndefinedTable" in django["exception"]
    assert (django["event"], django["level"]) == ("Internal Server Error: /api/products", "error")
    (failed,) = (line for line in about if line["logger"] == "ops.request")
    assert (failed["event"], failed["route"], failed["status"]) == ("request failed", "/api/products", 500)
    assert failed["stages"].keys() >= {"middleware", "db", "response"}
    accessed = [line for line in logged if line["logger"] == "ops.access"]
    assert [line["path"] for line in accessed] == ["/api/products", "/livez"]


def test_an_error_without_an_exception_is_one_line(start: Start) -> None:
    running = start(DATABASE_URL="postgresql://u@127.0.0.1:1/d")
    answer = running.client.get("/api/products")
    assert answer.status_code == 503
    stop(running)
    about = [line for line in lines(running) if line.get("request_id") == answer.headers["X-Request-ID"]]
    assert [(line["event"], line["status"]) for line in about] == [("request failed", 503)]


def test_a_storm_does_not_fill_the_disk(start: Start) -> None:
    running = start()
    for _ in range(2 * BURST):
        assert running.client.get("/api/products").status_code == 500
    eventually(lambda: running.scrapes('problems_total{code="internal_error"}', 2 * BURST))
    by_logger = [line["logger"] for line in lines(running)]
    for logger in ("django.request", "ops.request"):
        assert BURST <= by_logger.count(logger) < 1.5 * BURST


@pytest.fixture
def written() -> Callable[..., str]:
    """The line that is made of a message, in the form that is asked for."""

    def write(message: str, *arguments: object, form: str = "json") -> str:
        error = sys.exc_info()
        record = logging.LogRecord("tests", logging.ERROR, __file__, 1, message, arguments, error)
        return Formatter(form=form, secrets=SECRETS.values).format(record)

    return write


@pytest.mark.parametrize("form", ["json", "console"])
@pytest.mark.parametrize(
    "text",
    [
        *SECRETS.values(),
        *(quote(secret, safe="") for secret in SECRETS.values()),
        *(repr({"password": secret}) for secret in SECRETS.values()),
        *(f"{name}: {value}" for name, value in SENT.items()),
        repr(SENT),
        repr([(name.lower().encode(), value.encode()) for name, value in SENT.items()]),
        json.dumps(SENT),
        "curl -H 'Authorization: Basic s3cret0123456789=='",
        "sent bearer s3cret0123456789abcdef twice",
        "HTTP_COOKIE='a=s3cret; b=s3cret'",
    ],
)
def test_no_secret_in_any_spelling(written: Callable[..., str], form: str, text: str) -> None:
    try:
        raise ValueError(text)
    except ValueError:
        line = written("about %s", text, form=form)
    assert "s3cret" not in line
    assert "***" in line
    assert "about" in line


@pytest.mark.parametrize("text", ["authorization required", "a basic thing", "cookies, no", "bearer of news"])
def test_words_are_left_alone(written: Callable[..., str], text: str) -> None:
    assert text in written(text)


def test_a_line_stays_one_line(written: Callable[..., str]) -> None:
    line = written('new\nline "quoted" \x00 \ud800')
    assert "\n" not in line
    assert json.loads(line)["event"].startswith('new\nline "quoted" \x00')


def test_a_long_text_is_cut(written: Callable[..., str]) -> None:
    assert len(written("x" * 1_000_000)) < logs.LONGEST + 1000


def test_a_line_names_its_request(written: Callable[..., str]) -> None:
    token = current.set(Stopwatch(b"the-id"))
    try:
        assert json.loads(written("x"))["request_id"] == "the-id"
    finally:
        current.reset(token)
    assert "request_id" not in json.loads(written("x"))


def test_what_is_left_out_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("ops.instruments.logs.monotonic", lambda: now)
    bounded = Bounded()

    def passes(level: int = logging.ERROR, name: str = "a") -> Any:
        record = logging.LogRecord(name, level, "", 0, "", None, None)
        return bounded.filter(record) and getattr(record, "suppressed", True)

    assert [passes() for _ in range(BURST + 3)] == [0] * BURST + [False] * 3
    assert passes(name="b") == 0
    assert passes(logging.DEBUG) is True
    now += 1 / logs.RATE
    assert [passes(), passes()] == [3, False]
    now += 3600
    assert passes() == 1


@pytest.mark.parametrize(
    ("url", "passwords"),
    [
        ("redis://:a%2Fb@h", {"a%2Fb", "a/b"}),
        ("unix:///s?db=1&password=a%20b", {"", "a%20b", "a b"}),
        ("redis://h", {""}),
    ],
)
def test_passwords_of_a_url(url: str, passwords: set[str]) -> None:
    assert {*passwords_of(url)} == passwords
