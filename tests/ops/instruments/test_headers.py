"""The pieces of telemetry that an answer without ASGI is made of."""

import re

import pytest

from ops.instruments import request_id
from ops.instruments.headers import BUDGETED, headers, hit_block
from ops.instruments.stopwatch import CACHE, STAGES, Stopwatch


def test_a_hit_has_the_headers_of_any_answer() -> None:
    lines = hit_block(b"the-id", 0.0123456).split(b"\r\n")
    assert lines == [
        b"x-request-id: the-id",
        b"x-request-duration: 0.012346",
        b"server-timing: " + BUDGETED.replace(b"%.3f", b"0.000") + b", cache;dur=12.346",
        b"",
    ]
    assert [line.partition(b":")[0] for line in lines[:3]] == [name for name, _ in headers(Stopwatch(b"id"))]


def test_a_look_into_the_cache_is_spelled_as_any_answer() -> None:
    """Which has a short way of its own."""
    look, other = Stopwatch(b"id"), Stopwatch(b"id")
    look.claim(CACHE)
    other.active.append(CACHE.index)  # after a moment of middleware
    short, long = (dict(headers(watch))[b"server-timing"].split(b", ") for watch in (look, other))
    assert short[:-1] == [b"%b;dur=0.000" % stage.name.encode() for stage in STAGES[:5]]
    assert [part.partition(b"=")[0] for part in short] == [part.partition(b"=")[0] for part in long]
    assert look.seconds[CACHE.index] == sum(look.seconds) > 0


def test_stages_that_did_not_run_are_left_out_but_for_the_budgets() -> None:
    watch = Stopwatch(b"id")
    watch.seconds[5:7] = [0.001, 0.0025]  # cache and queue
    timing = dict(headers(watch))[b"server-timing"].decode()
    assert re.findall(r"(\w+);dur=", timing) == [
        *("middleware", "auth", "db", "serialisation", "response", "cache", "queue")
    ]
    assert timing.endswith("cache;dur=1.000, queue;dur=2.500")


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
