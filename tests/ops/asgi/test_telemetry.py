"""What telemetry tells of a request: in the answer's headers, in the metrics, in the log."""

import asyncio
import re
import time
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

import httpx
import pytest
from pytest_django import DjangoDbBlocker, Settings

from ops.asgi.answering import send_answer
from ops.asgi.handler import LeanASGIHandler
from ops.asgi.hosts import AllowedHosts
from ops.asgi.probes import Probes
from ops.asgi.stock import StockASGIHandler
from ops.asgi.telemetry import Telemetry
from ops.asgi.types import REFUSED, Application, Receive, Scope, Send
from ops.telemetry import request_stats
from ops.telemetry.health import Health
from ops.telemetry.readiness import readiness
from ops.telemetry.stopwatch import STAGES, Stopwatch, current
from tests.ops.asgi import views
from tests.ops.asgi.server import Serving, serve
from tests.ops.asgi.views import DEADLINE

ID = re.compile(r"[0-9a-f]{32}")
TIMING = re.compile(
    r"middleware;dur=([\d.]+), auth;dur=([\d.]+), db;dur=([\d.]+), serialisation;dur=([\d.]+), "
    r"response;dur=([\d.]+)((?:, (?:cache|queue);dur=[\d.]+)*)"
)


@pytest.fixture(params=[LeanASGIHandler, StockASGIHandler])
def timed(request: pytest.FixtureRequest, routes: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Serving]:
    with serve(Telemetry(Probes(AllowedHosts(request.param()), Health({}))), monkeypatch) as serving:
        yield serving


Labels = tuple[str, str, str]


class Counted(dict[Labels, int]):
    """How many requests were counted since the test began, by route, method and status."""

    def __init__(self) -> None:
        super().__init__()
        self.before = {labels: sum(series.counts) for labels, series in request_stats.DURATION.series.items()}

    def __missing__(self, labels: Labels) -> int:
        return sum(request_stats.DURATION.labels(*labels).counts) - self.before.get(labels, 0)


@pytest.fixture
def counted() -> Iterator[Counted]:
    yield Counted()
    assert request_stats.in_flight.value == 0


def spent(answer: httpx.Response) -> dict[str, float]:
    """The stages' milliseconds, which must add up to the duration."""
    assert ID.fullmatch(answer.headers["X-Request-ID"])
    assert re.fullmatch(r"\d+\.\d{6}", answer.headers["X-Request-Duration"])
    assert TIMING.fullmatch(answer.headers["Server-Timing"])
    stages = dict(re.findall(r"(\w+);dur=([\d.]+)", answer.headers["Server-Timing"]))
    milliseconds = {name: float(text) for name, text in stages.items()}
    total = float(answer.headers["X-Request-Duration"]) * 1e3
    assert sum(milliseconds.values()) == pytest.approx(total, abs=0.004)  # what rounding leaves
    return milliseconds


@pytest.mark.parametrize(
    "path", ["/empty", "/sync", "/missing", "/unknown", "/failing", "/stream", "/cookie"]
)
def test_every_answer_carries_the_headers(timed: Serving, path: str) -> None:
    first, second = timed.get(path), timed.get(path)
    spent(first)
    spent(second)
    assert first.headers["X-Request-ID"] != second.headers["X-Request-ID"]


def test_so_does_the_refusal_of_a_host(timed: Serving) -> None:
    answer = timed.client.get("/empty", headers={"Host": "elsewhere"})
    assert answer.status_code == HTTPStatus.BAD_REQUEST
    spent(answer)


@pytest.mark.parametrize("sent", ["a", "01ARZ3NDEKTSV4RRFFQ69G5FAV", "a.b_c~d-1", "x" * 128])
def test_a_well_formed_id_is_kept(timed: Serving, sent: str) -> None:
    assert timed.client.get("/empty", headers={"X-Request-ID": sent}).headers["X-Request-ID"] == sent


@pytest.mark.parametrize("sent", [b"", b"a b", b"a,b", b"x" * 129, b"\xc3\xa9", b'"', b"a;b", b"<script>"])
def test_another_id_is_replaced(timed: Serving, sent: bytes) -> None:
    answer = timed.client.get("/empty", headers={b"X-Request-ID": sent})
    assert ID.fullmatch(answer.headers["X-Request-ID"])


async def in_one_piece(scope: Scope, receive: Receive, send: Send) -> None:
    await send_answer(send, 201, [(b"content-length", b"2")], b"ab")


async def in_two(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 201, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ab"})


@pytest.mark.parametrize("application", [in_one_piece, in_two])
def test_an_answer_in_one_piece_is_told_and_counted_as_any(
    application: Application, monkeypatch: pytest.MonkeyPatch, counted: Counted
) -> None:
    with serve(Telemetry(application), monkeypatch) as serving:
        response = serving.get("/")
    spent(response)
    assert (response.status_code, response.content) == (201, b"ab")
    assert [name for name in response.headers if name not in ("date", "server")] == [
        *("content-length", "x-request-id", "x-request-duration", "server-timing")
    ]
    assert counted["unmatched", "GET", "201"] == 1


def test_the_sync_orm_is_timed_in_its_thread(
    timed: Serving, pool: views.Pool, django_db_blocker: DjangoDbBlocker
) -> None:
    assert spent(timed.get("/orm"))["db"] > 0
    assert spent(timed.get("/empty"))["db"] == 0


@pytest.mark.parametrize(
    ("request_line", "counted_as"),
    [
        ("GET /empty", ("/empty", "GET", "200")),
        ("HEAD /empty", ("/empty", "HEAD", "200")),
        ("GET /state/7", ("/state/{number}", "GET", "200")),
        ("GET /missing", ("/missing", "GET", "404")),
        ("GET /unknown", ("unmatched", "GET", "404")),
        ("GET /failing", ("/failing", "GET", "500")),
        ("PURGE /empty", ("/empty", "other", "200")),
        ("GET /livez", ("/livez", "GET", "200")),
        ("POST /livez", ("/livez", "POST", "405")),
    ],
)
def test_requests_are_counted_by_route(
    timed: Serving, counted: Counted, request_line: str, counted_as: Labels
) -> None:
    timed.client.request(*request_line.split())
    timed.wait_until_ended()
    assert counted[counted_as] == 1


def test_the_times_that_are_counted_are_the_requests(timed: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    watches: list[Stopwatch] = []
    finished = Stopwatch.respond

    def respond(self: Stopwatch) -> float:
        watches.append(self)
        return finished(self)

    monkeypatch.setattr(Stopwatch, "respond", respond)
    duration = request_stats.DURATION.labels("/state", "GET", "200")
    stages = [request_stats.STAGE.labels("/state", name) for name in ("middleware", "response")]
    before = duration.sum, sum(stage.sum for stage in stages)
    timed.get("/state")
    seconds, explained = duration.sum - before[0], sum(stage.sum for stage in stages) - before[1]
    assert seconds == pytest.approx(explained)
    assert seconds == pytest.approx(sum(watches[0].seconds))


def test_a_client_that_leaves(timed: Serving, counted: Counted) -> None:
    with timed.send(b"GET /endless HTTP/1.1\r\nHost: localhost\r\n\r\n"):
        assert views.events["waiting"].wait(views.DEADLINE)
        assert request_stats.in_flight.value == 1
    timed.wait_until_ended()
    assert counted["/endless", "GET", "499"] == 1


def test_an_answer_that_breaks_off(
    routes: None, monkeypatch: pytest.MonkeyPatch, pool: views.Pool, counted: Counted
) -> None:
    with serve(Telemetry(LeanASGIHandler()), monkeypatch) as serving:
        with pytest.raises(httpx.RemoteProtocolError):
            serving.client.get("/orm_in_pieces")
        serving.wait_until_ended()
    assert counted["/orm_in_pieces", "GET", "500"] == 1


class Heard:
    """In place of structlog's logger."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []

    def __getattr__(self, level: str) -> Any:
        return lambda event, **fields: self.lines.append({"event": event, "level": level, **fields})


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> dict[str, Heard]:
    monkeypatch.setattr("ops.telemetry.logs._bounded", None)  # tests before this one have logged the same
    loggers = {"logger": Heard(), "access": Heard()}
    for name, logger in loggers.items():
        monkeypatch.setattr(f"ops.asgi.telemetry.{name}", logger)
    return loggers


async def broken(scope: Scope, receive: Receive, send: Send) -> None:
    raise ValueError("a message")


def test_an_error_below_django_is_answered(
    monkeypatch: pytest.MonkeyPatch, counted: Counted, heard: dict[str, Heard]
) -> None:
    with serve(Telemetry(broken), monkeypatch) as serving:
        answer = serving.get("/")
    assert not serving.errors
    assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
    assert "message" not in answer.text
    spent(answer)
    assert counted["unmatched", "GET", "500"] == 1
    assert heard["logger"].lines[-1]["code"] == "internal_error"


def test_an_error_is_one_line(timed: Serving, heard: dict[str, Heard]) -> None:
    answer = timed.get("/failing?secret=1")
    (line,) = heard["logger"].lines
    assert line["event"] == "request failed"
    assert line["request_id"] == answer.headers["X-Request-ID"]
    assert (line["method"], line["route"], line["path"], line["status"]) == (
        "GET",
        "/failing",
        "/failing",
        500,
    )
    assert line["ms"] == pytest.approx(sum(line["stages"].values()), abs=0.01)
    assert not heard["access"].lines


def test_a_request_over_budget_is_one_line(
    timed: Serving, heard: dict[str, Heard], monkeypatch: pytest.MonkeyPatch
) -> None:
    layer: Any = timed.application
    layer.total, layer.limits = 1000, [0] * len(STAGES)
    timed.get("/empty")
    assert not heard["logger"].lines
    layer.total = 0
    timed.get("/empty")
    (line,) = heard["logger"].lines
    assert (line["event"], line["level"], line["status"]) == ("request over budget", "warning", 200)
    assert line["over"] == ["middleware", "response"]
    layer.limits = [1000] * len(STAGES)
    timed.get("/empty")
    assert heard["logger"].lines[-1]["over"] == ["total"]  # no stage alone was
    before = len(heard["logger"].lines)
    assert timed.get("/stream").content == b"0\n1\n2\n"  # it lasts as long as its client takes
    assert len(heard["logger"].lines) == before
    timed.get("/large")  # in pieces, too, but it was there as a whole
    assert len(heard["logger"].lines) == before + 1
    before += 1
    monkeypatch.setattr(readiness, "warm_at", time.monotonic() + DEADLINE)  # as just after a start
    timed.get("/empty")
    monkeypatch.setattr(readiness, "warm_at", 0.0)
    timed.get("/empty")
    assert len(heard["logger"].lines) == before + 1


def test_the_budget_is_the_settings(settings: Settings) -> None:
    layer = Telemetry(broken)
    limits = {stage.name: limit for stage, limit in zip(STAGES, layer.limits, strict=True)}
    budget = settings.LATENCY_BUDGET
    assert layer.total == budget.total == pytest.approx(0.010)
    assert (limits["db"], limits["auth"], limits["queue"]) == (budget.db, budget.auth, budget.total)


@pytest.mark.parametrize(("share", "lines"), [(0.0, range(1)), (0.5, range(1, 200)), (1.0, range(200, 201))])
def test_the_access_log_is_a_sample(
    timed: Serving, heard: dict[str, Heard], share: float, lines: range
) -> None:
    layer: Any = timed.application
    layer.access_log_share = share
    for _ in range(200):
        timed.get("/empty?a=b")
    assert len(heard["access"].lines) in lines
    assert all(line["path"] == "/empty" for line in heard["access"].lines)


def test_no_task_and_no_thread(routes: None, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve(Telemetry(Probes(AllowedHosts(LeanASGIHandler()), Health({}))), monkeypatch) as serving:
        for path in ("/empty", "/livez", "/readyz"):
            serving.get(path)
        assert (serving.tasks, serving.hops) == (0, 0)


def test_a_request_leaves_its_stopwatch_behind(timed: Serving) -> None:
    timed.get("/empty")
    assert current.get() is None


@pytest.mark.parametrize(("state", "status"), [({}, "499"), ({REFUSED: 400}, "400")])
def test_a_request_without_an_answer_is_counted_by_what_has_become_of_it(
    state: dict[str, int], status: str
) -> None:
    async def leave(scope: Scope, receive: Receive, send: Send) -> None: ...

    async def nothing(*_: Any) -> Any: ...

    counted = Counted()
    scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "state": state}
    asyncio.run(Telemetry(leave)(scope, nothing, nothing))
    assert counted["unmatched", "GET", status] == 1
