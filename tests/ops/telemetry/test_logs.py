"""Lines of a log: one form, no secret, no flood. Most of it on a real service."""

import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from ops.telemetry import logs
from ops.telemetry.logs import BURST_LINES, SAME_SECONDS, Bounded, Formatter, passwords_of, values_of
from ops.telemetry.stopwatch import Stopwatch, current
from tests.ops.telemetry.conftest import Instrumented, Start, eventually
from tests.service import PATIENCE

SECRETS = {
    "SECRET_KEY": "s3cret-of-the-key-" + "0123456789abcdef" * 2,
    "FALLBACK": "s3cret-of-the-key-before-" + "0123456789abcdef" * 2,
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
        SECRET_KEY_FALLBACKS=SECRETS["FALLBACK"],
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
    """The same error of the same route is a line, and one each ten seconds with a count."""
    running = start()
    began = time.monotonic()
    for _ in range(2 * BURST_LINES):
        assert running.client.get("/api/products").status_code == 500
    eventually(lambda: running.scrapes('problems_total{code="internal_error"}', 2 * BURST_LINES))
    stop(running)
    most = 1 + (time.monotonic() - began) / SAME_SECONDS
    for logger in ("django.request", "ops.request"):
        about = [line for line in lines(running) if line["logger"] == logger]
        assert 1 <= len(about) <= most
        if len(about) > 1:
            assert about[1]["suppressed"] > 0


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
    assert len(written("x" * 1_000_000)) < logs.MAX_TEXT_CHARACTERS + 1000


def test_a_line_names_its_request(written: Callable[..., str]) -> None:
    token = current.set(Stopwatch(b"the-id"))
    try:
        assert json.loads(written("x"))["request_id"] == "the-id"
    finally:
        current.reset(token)
    assert "request_id" not in json.loads(written("x"))


def test_what_is_left_out_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("ops.telemetry.logs.monotonic", lambda: now)
    bounded = Bounded()

    def passes(level: int = logging.ERROR, name: str = "a") -> Any:
        record = logging.LogRecord(name, level, "", 0, "", None, None)
        return bounded.filter(record) and getattr(record, "suppressed", True)

    assert [passes() for _ in range(BURST_LINES + 3)] == [0] * BURST_LINES + [False] * 3
    assert passes(name="b") == 0
    assert passes(logging.DEBUG) is True
    now += 1 / logs.LINES_PER_SECOND
    assert [passes(), passes()] == [3, False]
    now += 3600
    assert passes() == 1


def test_a_ready_line_counts_what_was_left_out(written: Callable[..., str]) -> None:
    assert written("x")  # in JSON
    lines: list[dict[str, Any]] = []

    class Keeping(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            record.suppressed = len(lines)
            lines.append(json.loads(Formatter(form="json", secrets=SECRETS.values).format(record)))

    logger = logging.getLogger("tests.ready")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.handlers = [Keeping()]
    for _ in range(2):
        logs.inform(logger, "exported", {"rows": 7})
    assert [(line["rows"], line.get("suppressed")) for line in lines] == [(7, None), (7, 1)]


def test_a_fault_is_a_line_and_a_count(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("ops.telemetry.logs.monotonic", lambda: now)
    bounded = Bounded()

    def passes(message: Any, *, error: Any = None, name: str = "a") -> Any:
        record = logging.LogRecord(name, logging.ERROR, "", 0, message, None, error)
        return bounded.filter(record) and getattr(record, "suppressed", True)

    def answer(route: str, **more: Any) -> dict[str, Any]:
        return {"event": "request failed", "route": route, "status": 503, "ms": time.monotonic(), **more}

    def fail(kind: type[Exception]) -> Any:
        """The error of a place."""
        try:
            raise kind(time.monotonic())
        except kind:
            return sys.exc_info()

    assert [passes(answer("/a")) for _ in range(4)] == [0, False, False, False]
    assert passes(answer("/b")) == passes(answer("/a", status=500)) == passes(answer("/a", code="x")) == 0
    assert [passes("no", error=fail(ValueError)) for _ in range(3)] == [0, False, False]
    assert passes("no", error=fail(KeyError)) == 0
    pool = "error connecting in %r: %s"
    assert [passes(pool, name="psycopg.pool") for _ in range(3)] == [0, False, False]
    assert [passes(pool) for _ in range(3)] == [0, 0, 0]  # of another logger, each line is news
    now += SAME_SECONDS
    assert passes(answer("/a")) == 3
    assert passes("no", error=fail(ValueError)) == passes(pool, name="psycopg.pool") == 2
    assert not passes(answer("/a"))


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


def test_what_is_secret_in_the_address_of_a_service() -> None:
    """A key, and the query as a whole; not a word that is in any line."""
    hidden = values_of("https://rates.example/?format=json&key=0123456789abcdef%2B")
    assert hidden == ["format=json&key=0123456789abcdef%2B", "0123456789abcdef%2B", "0123456789abcdef+"]
