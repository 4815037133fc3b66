"""The wire answers as the ASGI layer would, byte for byte, and nothing that the ASGI layer would not."""

import time
from collections.abc import Iterator
from typing import cast

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from api.cache import lookup
from api.cache.entry import Entry
from ops.gunicorn import wire
from tests.ops.asgi import pages
from tests.ops.asgi.views import DEADLINE
from tests.ops.gunicorn.corpus import (
    BROWSER,
    CASES,
    CLOSE,
    GET,
    MISS,
    POST,
    TARGET,
    TARGETS,
    WARM,
    Case,
    request,
)
from tests.ops.gunicorn.twins import TIMES, Counts, Twins, read_all, read_one, twins

HIT_WIRE, HIT_L1 = ("hit", "wire"), ("hit", "l1")


@pytest.fixture(scope="module")
def pair() -> Iterator[Twins]:
    with twins() as pair:
        pair.warm(*WARM)
        yield pair


@pytest.fixture
def unknown(pair: Twins) -> Iterator[None]:
    """The wire knows nothing."""
    known = dict(wire.ready)
    wire.ready.clear()
    yield
    for entry in wire.ready.values():
        cast("Entry", entry).raw_targets.clear()
    wire.ready.clear()
    wire.ready.update(known)


def without_tier(counts: Counts) -> Counts:
    """What the cache has counted, with the wire's hits as the layer's."""
    hits = counts[HIT_WIRE] + counts[HIT_L1]
    return Counts({**counts, HIT_WIRE: 0, HIT_L1: hits}) + Counts()


def compare(pair: Twins, segments: list[bytes]) -> Counts:
    """What the wire's server has counted; it has answered as the other does."""
    expected, layer_counts = pair.layer.exchange(segments)
    if layer_counts["miss", "none"]:  # the other server would find what this one has computed
        expected, layer_counts = pair.layer.exchange(segments)
    answers, counts = pair.wire.exchange(segments)
    assert answers == expected
    assert without_tier(counts) == layer_counts
    return counts


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_corpus(pair: Twins, case: Case) -> None:
    assert compare(pair, case.segments)[HIT_WIRE] == case.hits


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_corpus_without_entries(pair: Twins, unknown: None, case: Case) -> None:
    assert compare(pair, case.segments)[HIT_WIRE] == 0


@pytest.mark.parametrize(
    "whole", [GET, BROWSER, GET + request(TARGET, b"If-None-Match: *"), POST + GET, MISS + GET]
)
def test_split_anywhere(pair: Twins, whole: bytes) -> None:
    for at in range(1, len(whole)):
        compare(pair, [whole[:at], whole[at:]])


@pytest.mark.parametrize("target", TARGETS)
def test_target_that_the_wire_has_learnt(pair: Twins, unknown: None, target: bytes) -> None:
    """However a target is spelled: once the layer has answered it, the wire answers the same."""
    pair.learns = True
    compare(pair, [request(target)])
    pair.learns = False
    hits = compare(pair, [request(target)])[HIT_WIRE]
    assert hits == (target in wire.ready)
    assert len(wire.ready) <= 1


LINES = st.sampled_from(
    [
        b"Connection: close",
        b"Connection: keep-alive",
        b"Connection: Upgrade",
        b"Upgrade: h2c",
        b"Expect: 100-continue",
        b"Content-Length: 0",
        b"Content-Length: 5",
        b"Transfer-Encoding: chunked",
        b"Accept-Encoding: gzip, zstd",
        b"If-None-Match: *",
        b"Host: localhost",
        b"Authorization: x",
        b"Cookie: a=1",
        b"X-Test: a\x80",
        b"X-Test : a",
    ]
)
REQUESTS = st.builds(
    lambda target, lines, **named: request(target, *lines, **named),
    st.sampled_from([*WARM, b"/page/unknown", b"/zoo/scope", b"/zoo/early", b"/zoo/raise", b"http://localhost/page/list"]),
    st.lists(LINES, max_size=3),
    method=st.sampled_from([b"GET"] * 6 + [b"HEAD", b"POST", b"OPTIONS"]),
    version=st.sampled_from([b"1.1"] * 8 + [b"1.0"]),
    host=st.sampled_from([b"localhost"] * 8 + [b"other.invalid", None]),
    body=st.sampled_from([b""] * 6 + [b"abcde", b"5\r\nabcde\r\n0\r\n\r\n", b"\r\n"]),
)  # fmt: skip
SEPARATORS = st.sampled_from([b"\r\n", b" ", b"\n", b":"])
PLAIN = st.sampled_from(
    [GET, BROWSER, POST, MISS, request(method=b"HEAD"), request(TARGET, b"If-None-Match: *")]
)


@st.composite
def conversations(draw: st.DrawFn) -> list[bytes]:
    """Requests of which some are odd: each by itself and some of them twice, or cut anywhere, with bytes changed."""
    requests = draw(st.lists(PLAIN | REQUESTS, min_size=1, max_size=6))
    if draw(st.booleans()):
        return [one for one in requests for _ in range(draw(st.integers(1, 2)))]
    whole = bytearray(b"".join(requests))
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 2]))):
        at = draw(st.integers(0, len(whole)))
        whole[at : at + draw(st.integers(0, 2))] = draw(st.binary(max_size=2) | SEPARATORS)
    cuts = sorted(draw(st.sets(st.integers(0, len(whole)), max_size=4)))
    return [bytes(whole[a:b]) for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]


@settings(max_examples=300, derandomize=True, deadline=None)
@given(conversations())
@example([GET + MISS + b"\x00" + GET])
def test_any_conversation(pair: Twins, segments: list[bytes]) -> None:
    compare(pair, segments)


@pytest.mark.parametrize("first", [[], [GET]])
def test_entry_to_be_revalidated(pair: Twins, monkeypatch: pytest.MonkeyPatch, first: list[bytes]) -> None:
    """The layer answers with an entry that is not trusted any more, also to a client that repeats itself."""
    monkeypatch.setattr(lookup, "GRACE_SECONDS", 7200.0)
    monkeypatch.setattr(pair.pages.lookup, "_revalidate_soon", lambda target: None)
    with pair.wire.connect() as connection, connection.makefile("rb") as answers:
        for segment in first:
            connection.sendall(segment)
            read_one(answers)
        monkeypatch.setattr(wire.ready[TARGET], "trusted_until", time.monotonic())
        before = pages.POLICY.counts.copy()
        for _ in range(2):
            connection.sendall(GET)
            read_one(answers)
    assert pages.POLICY.counts - before == {HIT_L1: 2}


def test_hits_wait_behind_a_slow_request(pair: Twins) -> None:
    first, then = GET + request(b"/slow") + GET, request(b"/page/small") + CLOSE
    pages.released.set()
    expected, counts = pair.layer.exchange([first, then])
    pages.released.clear()
    pages.started.clear()
    before = pages.POLICY.counts.copy()
    with pair.wire.connect() as connection:
        connection.sendall(first)
        assert pages.started.wait(DEADLINE)
        connection.sendall(then)
        pair.wire.run_there(pair.wire.read())
        pages.released.set()
        answers = read_all(connection)
    assert TIMES.sub(b"", answers) == expected
    assert without_tier(pages.POLICY.counts - before) == counts
