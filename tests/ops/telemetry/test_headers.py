"""The pieces of telemetry that an answer without ASGI is made of."""

import re

import pytest

from ops.telemetry import request_id
from ops.telemetry.headers import BUDGETED, headers, hit_block
from ops.telemetry.stopwatch import CACHE, STAGES, Stopwatch


def test_a_hit_has_the_headers_of_any_answer() -> None:
    lines = hit_block(b"the-id", 0.0123456, stages=True).split(b"\r\n")
    assert lines == [
        b"x-request-id: the-id",
        b"x-request-duration: 0.012346",
        b"server-timing: " + BUDGETED.replace(b"%.3f", b"0.000") + b", cache;dur=12.346",
        b"",
    ]
    assert [line.partition(b":")[0] for line in lines[:3]] == [
        name for name, _ in headers(Stopwatch(b"id"), stages=True)
    ]


def test_without_stages() -> None:
    lines = hit_block(b"the-id", 0.0123456, stages=False).split(b"\r\n")
    assert lines == [b"x-request-id: the-id", b"x-request-duration: 0.012346", b""]
    assert [name for name, _ in headers(Stopwatch(b"id"), stages=False)] == [
        b"x-request-id",
        b"x-request-duration",
    ]


def test_a_look_into_the_cache_is_spelled_as_any_answer() -> None:
    """Which has a short way of its own."""
    look, other = Stopwatch(b"id"), Stopwatch(b"id")
    look.claim(CACHE)
    other.active.append(CACHE.index)  # after a moment of middleware
    short, long = (
        dict(headers(watch, stages=True))[b"server-timing"].split(b", ") for watch in (look, other)
    )
    assert short[:-1] == [b"%b;dur=0.000" % stage.name.encode() for stage in STAGES[:5]]
    assert [part.partition(b"=")[0] for part in short] == [part.partition(b"=")[0] for part in long]
    assert look.seconds[CACHE.index] == sum(look.seconds) > 0


def test_stages_that_did_not_run_are_left_out_but_for_the_budgets() -> None:
    watch = Stopwatch(b"id")
    watch.seconds[5:8] = [0.001, 0.0025, 0.004]  # cache, queue and upstream
    timing = dict(headers(watch, stages=True))[b"server-timing"].decode()
    assert re.findall(r"(\w+);dur=", timing) == [
        *("middleware", "auth", "db", "serialisation", "response", "cache", "queue", "upstream")
    ]
    assert timing.endswith("cache;dur=1.000, queue;dur=2.500, upstream;dur=4.000")


def test_ids_differ() -> None:
    made = {request_id.make() for _ in range(10_000)}
    assert len(made) == 10_000
    assert all(re.fullmatch(rb"[0-9a-f]{32}", each) for each in made)


@pytest.mark.parametrize("sent", [b"a", b"x" * 128, b"A-Z_a.z~0"])
def test_a_well_formed_id_is_kept(sent: bytes) -> None:
    assert request_id.choose(sent) == sent


@pytest.mark.parametrize("sent", [b"", b"x" * 129, b"a\n", b"a b", b"\xff", b"a\r\nb: c"])
def test_another_one_is_replaced(sent: bytes) -> None:
    assert len(request_id.choose(sent)) == 32


PARENT = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def test_a_trace_is_handed_on() -> None:
    fields = [(b"traceparent", PARENT), (b"tracestate", b"a=1"), (b"host", b"x"), (b"tracestate", b"b=2")]
    assert request_id.trace_of(fields) == [("traceparent", PARENT.decode()), ("tracestate", "a=1,b=2")]
    assert request_id.trace_of(fields[:1]) == [("traceparent", PARENT.decode())]


@pytest.mark.parametrize("parents", [[], [PARENT.upper()], [PARENT[:-1]], [PARENT, PARENT], [PARENT + b"\n"]])
def test_a_bad_trace_is_not(parents: list[bytes]) -> None:
    fields = [(b"tracestate", b"a=1"), *((b"traceparent", parent) for parent in parents)]
    assert request_id.trace_of(fields) == []


def test_a_state_that_is_too_long_stays_behind() -> None:
    fields = [(b"traceparent", PARENT), (b"tracestate", b"a" * 513)]
    assert request_id.trace_of(fields) == [("traceparent", PARENT.decode())]
