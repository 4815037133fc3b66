"""Calls of an upstream that behaves in every way: each ends in time, in an answer or a word for the failure."""

import asyncio
import socket
import time
import traceback
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from ops.breaker import MAX_FAILURES
from ops.http import upstream as module
from ops.http.client import MAX_IN_FLIGHT, Client, clients
from ops.http.upstream import (
    CALLS,
    DURATION,
    MAX_TRIES,
    Answer,
    Upstream,
    UpstreamUnavailable,
    retry_after,
)
from ops.project import NAME
from ops.telemetry.stopwatch import UPSTREAM, Stopwatch, current
from tests.loops import until
from tests.upstream import Behaviour, Source, answers, drips, hangs, in_turn, resets, says, source

TIMEOUT = 0.3  # seconds
PATIENT = 20.0  # for a test in which time is no matter
MAX_BYTES = 1000
WELL = answers(b"well")
UNAVAILABLE = answers(b"", "503 Service Unavailable")


@pytest.fixture
def other() -> Iterator[Source]:
    with source(WELL) as running:
        yield running


def declare(url: str, timeout: float = PATIENT) -> Upstream:
    return Upstream("test", url, timeout=timeout, max_bytes=MAX_BYTES)


async def reason_of(upstream: Upstream, method: str = "GET") -> str:
    """The reason why there is no answer. It is counted, too."""
    with pytest.raises(UpstreamUnavailable) as caught:
        await upstream.send(method)
    return caught.value.reason


async def test_an_answer(client: Client, other: Source) -> None:
    before = CALLS.labels("test", "2xx").value
    assert (await declare(other.url).get("/a?b=%20c"))[::2] == (200, b"well")
    assert other.requests[0].startswith(b"GET /a?b=%20c HTTP/1.1\r\n")
    assert CALLS.labels("test", "2xx").value == before + 1


async def test_a_connection_serves_many_calls(client: Client, other: Source) -> None:
    upstream = declare(other.url)
    for _ in range(5):
        await upstream.get()
    assert other.connections == 1


@pytest.mark.parametrize(
    ("behave", "reason"),
    [
        pytest.param(hangs, "timeout", id="hangs"),
        pytest.param(drips(b"HTTP/1.1 200 OK\r\n", b"A: b\r\n"), "timeout", id="endless fields, slowly"),
        pytest.param(drips(b"HTTP/1.1 200 OK\r\nX: ", b"x"), "timeout", id="one endless field, slowly"),
        pytest.param(
            drips(b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n", b"x"), "timeout", id="slow content"
        ),
        pytest.param(drips(b"HTTP/1.1 200 OK\r\nX: ", b"x" * 999, pause=0), "malformed", id="a long field"),
        pytest.param(drips(b"HTTP/1.1 200 OK\r\n", b"A: b\r\n", pause=0), "malformed", id="many fields"),
        pytest.param(
            drips(b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 99, pause=0), "too_large", id="endless content"
        ),
        pytest.param(answers(b"x" * 10_000_000), "too_large", id="10 MB"),
        pytest.param(resets, "connection", id="resets"),
        pytest.param(says(b""), "connection", id="closes"),
        pytest.param(says(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx"), "malformed", id="too short"),
        pytest.param(says(b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"), "malformed", id="bad length"),
        pytest.param(says(b"HTTP/1.1 99999 OK\r\n\r\n"), "malformed", id="bad status"),
        pytest.param(says(b"SSH-2.0-OpenSSH_9.2\r\n\r\n"), "malformed", id="no HTTP"),
        pytest.param(
            says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n"), "malformed", id="chunks"
        ),
        pytest.param(answers(b"", "500 Oops"), "failed", id="500"),
        pytest.param(UNAVAILABLE, "failed", id="503"),
        pytest.param(answers(b"", "429 Too Many Requests"), "overloaded", id="429"),
        pytest.param(answers(b"", "429 Too Many Requests", Retry_After="9"), "overloaded", id="429 for 9 s"),
    ],
)
async def test_a_failure_is_known_in_time(client: Client, behave: Behaviour, reason: str) -> None:
    before = CALLS.labels("test", reason).value
    with source(behave) as running:
        began = time.perf_counter()
        assert await reason_of(declare(running.url, TIMEOUT)) == reason
        assert time.perf_counter() - began < TIMEOUT + 0.5
        assert CALLS.labels("test", reason).value == before + 1
        assert client.states["test"].in_flight == 0
        if reason in ("timeout", "too_large", "malformed"):  # such a connection serves no other call
            await until(lambda: not running.open_connections)


async def test_none_listens(client: Client) -> None:
    with source(WELL) as gone:
        upstream = declare(gone.url)
    assert await reason_of(upstream) == "connection"


async def test_a_name_that_is_none(client: Client) -> None:
    assert await reason_of(declare("http://nowhere.invalid")) in ("connection", "timeout")


async def test_without_a_url(client: Client) -> None:
    assert await reason_of(declare("")) == "unconfigured"


async def test_a_redirect_leads_nowhere(client: Client, other: Source) -> None:
    with source(answers(b"", "302 Found", Location=other.url)) as running:
        assert (await declare(running.url).get()).status == 302
    assert not other.requests


async def test_cookies_stay_behind(client: Client) -> None:
    with source(answers(b"", Set_Cookie="a=b")) as running:
        url = running.url.replace("127.0.0.1", "localhost")  # an address has no cookies for aiohttp
        for _ in range(2):
            await declare(url).get()
        assert b"ookie" not in running.requests[1]


async def test_a_proxy_of_the_environment_is_not_used(
    client: Client, other: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, other.url)
    with source(WELL) as running:
        await declare(running.url).get()
    assert not other.requests


async def test_what_follows_an_answer_is_none_of_the_next(client: Client) -> None:
    """An answer that is longer than it says ends its connection."""
    short = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n"

    def says_too_much(_source: Source, connection: socket.socket) -> None:
        connection.sendall(short + b"well" + short + b"evil")

    with source(in_turn(says_too_much, WELL)) as running:
        upstream = declare(running.url)
        assert [(await upstream.get()).content for _ in range(2)] == [b"well", b"well"]
        assert running.connections == 2


@pytest.mark.parametrize(
    "path", ["a", "@evil.example/", ":1/", ".evil.example", "/a b", "/a\r\nX: y", "/\u00e9", "\n"]
)
async def test_a_path_leads_to_no_other_host(client: Client, other: Source, path: str) -> None:
    with pytest.raises(ValueError, match="a path begins with"):
        await declare(other.url).get(path)


@pytest.mark.parametrize(
    "path", ["//evil.example/", "/../..//evil.example", "/%0d%0aX:%20y", "?a=@evil.example"]
)
async def test_a_path_is_sent_to_the_host(client: Client, other: Source, path: str) -> None:
    assert (await declare(other.url).get(path)).status == 200
    assert b"\r\nHost: 127.0.0.1:" in other.requests[0]
    assert b"\r\nX:" not in other.requests[0]


async def test_a_field_that_is_none_is_no_failure_of_the_upstream(client: Client, other: Source) -> None:
    upstream = declare(other.url)
    cancelled, errors = CALLS.labels("test", "cancelled"), CALLS.labels("test", "error")
    before = cancelled.value, errors.value
    for _ in range(2 * MAX_FAILURES):
        with pytest.raises(ValueError, match="header injection"):
            await upstream.send("GET", fields={"X": "a\r\nY: b"})
    assert (cancelled.value, errors.value) == (before[0], before[1] + 2 * MAX_FAILURES)
    assert (await upstream.get()).status == 200


async def test_an_error_does_not_show_the_url(client: Client) -> None:
    """It may have a key in it."""
    with source(says(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")) as running:
        upstream = declare(f"{running.url}/?{'key'}={MAX_BYTES}")
        try:
            await upstream.get()
        except UpstreamUnavailable:
            shown = traceback.format_exc()
    assert "malformed" in shown
    assert f"key={MAX_BYTES}" not in shown


async def test_two_upstreams_on_one_host_do_not_wait_for_each_other(client: Client, other: Source) -> None:
    """One of them is slow, and has all the calls that it may have."""
    slow = Upstream("slow", other.url, timeout=PATIENT)
    other.behave = hangs
    calls = [asyncio.create_task(slow.get()) for _ in range(MAX_IN_FLIGHT)]
    for _ in calls:
        await asyncio.to_thread(other.wait_for_a_request)
    other.behave = WELL
    assert (await declare(other.url).get()).status == 200
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)


async def test_calls_that_are_not_made_have_no_duration(client: Client) -> None:
    durations = DURATION.labels("test")
    before = sum(durations.counts)
    assert await reason_of(declare("")) == "unconfigured"
    assert sum(durations.counts) == before


async def test_the_request_is_named(client: Client, other: Source) -> None:
    watch = Stopwatch(b"the-id")
    token = current.set(watch)
    await declare(other.url).send("POST", content=b"{}", fields={"Content-Type": "application/json"})
    current.reset(token)
    head = other.requests[0].decode().lower()
    for line in ("x-request-id: the-id", f"user-agent: {NAME.lower()}/", "content-type: application/json"):
        assert f"\r\n{line}" in head
    assert watch.seconds[UPSTREAM.index] > 0


# --- Tries ----------------------------------------------------------------------------------------


async def test_a_failure_that_may_pass_is_tried_again(client: Client) -> None:
    with source(in_turn(UNAVAILABLE, answers(b"", "502 Bad Gateway"), WELL)) as running:
        assert (await declare(running.url).get()).content == b"well"
        assert len(running.requests) == 3


@pytest.mark.parametrize(
    ("method", "behave", "tries"),
    [
        ("GET", UNAVAILABLE, MAX_TRIES),
        ("PUT", UNAVAILABLE, MAX_TRIES),
        ("POST", UNAVAILABLE, 1),  # it may have had its effect
        ("POST", resets, 1),
        ("GET", resets, 2),  # aiohttp's own
        ("GET", answers(b"", "500 Oops"), 1),
        ("GET", says(b"nonsense\r\n\r\n"), 1),
    ],
)
async def test_tries(client: Client, method: str, behave: Behaviour, tries: int) -> None:
    with source(behave) as running:
        await reason_of(declare(running.url), method)
        assert len(running.requests) == tries


async def test_tries_end_with_the_deadline(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BACKOFF_SECONDS", 1000.0)
    with source(UNAVAILABLE) as running:
        began = time.perf_counter()
        assert await reason_of(declare(running.url, 0.5)) == "failed"  # at once: there is no time to wait
        assert time.perf_counter() - began < 0.5
        assert len(running.requests) == 1


async def test_retry_after_within_the_deadline(client: Client) -> None:
    with source(in_turn(answers(b"", "429 Too Many Requests", Retry_After="1"), WELL)) as running:
        began = time.perf_counter()
        assert (await declare(running.url).get()).content == b"well"
        assert time.perf_counter() - began >= 1


async def test_retry_after_keeps_calls_away(client: Client) -> None:
    with source(in_turn(answers(b"", "503 Busy", Retry_After="60"), WELL)) as running:
        upstream = declare(running.url, TIMEOUT)
        for _ in range(MAX_FAILURES + 3):
            assert await reason_of(upstream) == "overloaded"
        assert len(running.requests) == 1
        assert not client.states["test"].breaker.is_open
        client.states["test"].not_before = 0
        assert (await upstream.get()).content == b"well"


def test_retry_after_is_seconds_or_a_date() -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    assert 98 < retry_after(date) <= 100
    assert retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    assert retry_after("120") == 120
    assert retry_after("9" * 5000) < 1e9
    for text in ("", "soon", "-1", "1.5", "\u0661", "Fri, 99 Foo 2015"):
        assert retry_after(text) == 0


# --- Bounds and the breaker -----------------------------------------------------------------------


async def test_calls_beyond_the_bound_are_refused(client: Client) -> None:
    with source(hangs) as running:
        upstream = declare(running.url)
        calls = [asyncio.create_task(upstream.get()) for _ in range(MAX_IN_FLIGHT)]
        await until(lambda: len(running.requests) == MAX_IN_FLIGHT)
        assert await reason_of(upstream) == "busy"
        assert not client.states["test"].breaker.is_open
        for call in calls:
            call.cancel()
        await asyncio.wait(calls)
        assert client.states["test"].in_flight == 0
        await until(lambda: not running.open_connections)  # a caller that leaves takes its connection along


async def test_the_breaker_opens_and_closes(client: Client) -> None:
    with source(answers(b"", "500 Oops")) as running:
        upstream = declare(running.url)
        for _ in range(MAX_FAILURES):
            assert await reason_of(upstream) == "failed"
        assert await reason_of(upstream) == "open"
        module.sample()
        assert module.OPEN.labels("test").value == 1
        probes = len(running.requests)
        await until(lambda: len(running.requests) > probes)  # in the background
        assert await reason_of(upstream) == "open"
        running.behave = WELL
        await until(lambda: not client.states["test"].breaker.is_open)
        assert (await upstream.get()).content == b"well"
        module.sample()
        assert module.OPEN.labels("test").value == 0


async def test_an_open_breaker_asks_the_path_that_is_meant_for_it(client: Client) -> None:
    with source(answers(b"", "500 Oops")) as running:
        upstream = Upstream("test", running.url, timeout=PATIENT, probe="/health")
        for _ in range(MAX_FAILURES):
            await reason_of(upstream, "POST")
        await until(lambda: running.requests[-1].startswith(b"GET /health "))


async def test_a_probe_is_no_part_of_a_request(client: Client) -> None:
    """It outlives the one that has failed: it has neither its name nor its time."""
    with source(answers(b"", "500 Oops")) as running:
        upstream, token = declare(running.url), current.set(Stopwatch(b"the-id"))
        for _ in range(MAX_FAILURES):
            await reason_of(upstream)
        current.reset(token)
        await until(lambda: len(running.requests) > MAX_FAILURES)
        named = [b"the-id" in head for head in running.requests]
        assert named[: MAX_FAILURES + 1] == [True] * MAX_FAILURES + [False]


async def test_an_upstream_that_refuses_a_request_is_well(client: Client) -> None:
    with source(answers(b"", "404 Not Found")) as running:
        upstream = declare(running.url)
        for _ in range(2 * MAX_FAILURES):
            assert (await upstream.get()).status == 404


async def test_one_upstream_does_not_disturb_another(client: Client, other: Source) -> None:
    with source(hangs) as running:
        ill = Upstream("ill", running.url, timeout=PATIENT)
        calls = [asyncio.create_task(ill.get()) for _ in range(MAX_IN_FLIGHT)]
        await until(lambda: len(running.requests) == MAX_IN_FLIGHT)
        assert (await declare(other.url, TIMEOUT).get()).status == 200
        for call in calls:
            call.cancel()
        await asyncio.wait(calls)


# --- Where no worker has opened the connections ---------------------------------------------------


def test_any_event_loop_will_do(other: Source) -> None:
    upstream = declare(other.url)
    for _ in range(2):
        answer: Answer = asyncio.run(upstream.get())
        assert answer.content == b"well"
    assert not clients
    deadline = time.monotonic() + PATIENT
    while other.open_connections:
        assert time.monotonic() < deadline
        time.sleep(0.005)


async def test_failures_there(runner: asyncio.Runner) -> None:
    with source(resets) as running:
        for _ in range(2 * MAX_FAILURES):  # each call begins anew
            assert await reason_of(declare(running.url)) == "connection"
