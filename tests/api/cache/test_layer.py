"""The cache as a client sees it: fields, conditions, codings; and answers that are never stored or shared."""

import gc
import gzip
import re
from collections.abc import Callable
from typing import Any

import httpx
import pytest
import zstandard
from django.test import override_settings
from pytest_django import Settings

from api.cache import encodings
from api.cache.layer import PASS_SECONDS, PageCache, _target
from api.cache.policy import POLICIES
from ops.asgi.handler import LeanASGIHandler
from ops.asgi.head import Head
from ops.asgi.stock import StockASGIHandler
from ops.gunicorn import wire
from ops.project import NAME
from tests.api.cache import views
from tests.api.cache.harness import Cached, Clock, cached, counts
from tests.api.cache.views import DATE, PROSE, calls
from tests.ops.asgi.server import serve

Keys = Callable[[], set[str]]
GZIP, ZSTD = ("accept-encoding", "gzip"), ("accept-encoding", "zstd")
TAGS = {"tag:shop.product", "tag:shop.category"}
CONTROL = "public, max-age=10, stale-while-revalidate=60, stale-if-error=60"


def status(response: httpx.Response) -> str:
    name, _, how = response.headers["cache-status"].partition("; ")
    assert name == NAME
    return str(how)


def lines(response: httpx.Response, *without: str) -> list[tuple[str, str]]:
    without = (*without, "x-request-id", "x-request-duration", "server-timing")  # of each request
    return sorted(pair for pair in response.headers.multi_items() if pair[0] not in without)


def warm(pages: Cached, path: str) -> httpx.Response:
    """Until it is answered from the worker's memory."""
    pages.get(path)
    response = pages.get(path)
    assert "detail=l1" in status(response)
    return response


# --- Fields ---------------------------------------------------------------------------------------


def test_how_an_answer_came_about(pages: Cached, clock: Clock) -> None:
    assert status(pages.get("/large")) == "fwd=uri-miss; stored"
    assert status(pages.get("/large")).endswith("detail=l1")
    clock.ahead += 3
    assert status(pages.get("/large")) == "hit; ttl=7; detail=l2"  # beyond its life in the worker
    assert status(pages.get("/large")) == "hit; ttl=7; detail=l1"
    clock.ahead += 8
    assert status(pages.get("/large")) == "hit; ttl=-1; detail=l2"
    assert status(pages.get("/large", ("expect", "something"))) == "fwd=bypass"
    assert "cache-status" not in pages.get("/undecorated").headers
    assert counts(POLICIES["tests.large"])["miss none"] == 1
    assert counts(POLICIES["tests.large"])["bypass none"] == 1
    assert counts(POLICIES["tests.large"])["hit l2"] == 1
    assert counts(POLICIES["tests.large"])["stale l2"] == 1


def test_every_request_is_counted_once(pages: Cached) -> None:
    for number in range(30):
        pages.get(f"/state?n={number % 3}")
        pages.get("/state", ("expect", "something"))
        pages.get("/cookie")
        pages.get("/state?n=11")  # refused
    counted = counts(POLICIES["tests.state"])
    assert sum(counted.values()) == 60
    assert counted["bypass none"] == 30
    assert counted["miss none"] == 3
    assert counted["hit wire"] > 0
    assert counts(POLICIES["tests.cookie"]) == {"bypass none": 30}


def test_age_and_date(pages: Cached, clock: Clock) -> None:
    first = pages.get("/large")
    assert first.headers["age"] == "0"
    assert first.headers.get_list("date") == [first.headers["date"]]
    for seconds in (4, 5, 20):
        clock.ahead += seconds
        for _ in range(2):  # from Redis, from memory; the wire keeps a head for one of uvicorn's seconds
            assert int(pages.get("/large").headers["age"]) in {
                clock.ahead,
                clock.ahead + 1,
                0,
            }  # 0: a refreshed


def test_fields_of_a_hit_are_those_of_a_miss(pages: Cached) -> None:
    miss = pages.get("/dated")
    ticking = "cache-status", "age", "date"
    assert dict(lines(miss, *ticking)) == {
        "cache-control": CONTROL,
        "content-language": "en",
        "content-length": str(len(PROSE)),
        "content-type": "text/html; charset=utf-8",
        "etag": miss.headers["etag"],
        "last-modified": DATE,
        "vary": "accept-encoding",
    }
    for _ in range(3):
        assert lines(pages.get("/dated"), *ticking) == lines(miss, *ticking)


def test_answers_that_are_not_stored_are_for_nobody_to_store(pages: Cached) -> None:
    for path in ("/status/404", "/refused", "/coded", "/huge", "/streamed", "/cookie", "/varied"):
        assert pages.get(path).headers["cache-control"] == "no-store"
    assert pages.get("/private").headers["cache-control"] == "max-age=5, Private"
    assert pages.get("/undecorated").headers["cache-control"] == "no-store"
    response = pages.get("/large", ("expect", "something"))
    assert response.headers["cache-control"] == "no-store"
    assert "etag" not in response.headers


@pytest.mark.parametrize("field", [("authorization", "Bearer x"), ("x-api-key", "x")])
def test_with_credentials_an_answer_is_the_same_and_private(
    pages: Cached, keys: Keys, field: tuple[str, str]
) -> None:
    """The endpoint has no authenticator, and does not see them: so its answer is for all clients, computed once."""
    ticking = "cache-status", "age", "date", "cache-control"
    first = pages.get("/state", field, GZIP)
    assert status(first) == "fwd=uri-miss; stored"
    for _ in range(3):
        own, others = pages.get("/state", field, GZIP), pages.get("/state", GZIP)
        assert status(own).startswith("hit")
        assert own.content == first.content == others.content
        assert lines(own, *ticking) == lines(first, *ticking) == lines(others, *ticking)
        assert own.headers["cache-control"] == CONTROL.replace("public", "private")
        assert others.headers["cache-control"] == CONTROL
        unchanged = pages.get("/state", field, GZIP, ("if-none-match", own.headers["etag"]))
        assert unchanged.status_code == 304
        assert unchanged.headers["cache-control"] == CONTROL.replace("public", "private")
    assert calls["state"] == 1
    assert keys() == {"entry:/state?", *TAGS}
    compressed = pages.get("/large", field, GZIP)
    assert compressed.headers["content-encoding"] == "gzip"
    assert compressed.headers["vary"] == "accept-encoding"


# --- Codings --------------------------------------------------------------------------------------


def test_codings_are_made_once_and_decode_to_the_same(pages: Cached, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    def counting(coding: str) -> Callable[[bytes], bytes]:
        code: Any = encodings.CODERS[coding]

        def count(body: bytes) -> Any:
            made.append(coding)
            return code(body)

        return count

    for coding in encodings.CODERS:
        monkeypatch.setitem(encodings.CODERS, coding, counting(coding))
    plain = warm(pages, "/large")
    seen = {plain.headers["etag"]}
    for accepted in (GZIP, ZSTD):
        for _ in range(5):
            request = pages.client.build_request("GET", "/large", headers=[("host", "testserver"), accepted])
            with_body = pages.client.send(request, stream=True)
            raw = b"".join(with_body.iter_raw())
            coding = accepted[1]
            decode: Any = {"gzip": gzip.decompress, "zstd": zstandard.ZstdDecompressor().decompress}[coding]
            assert with_body.headers["content-encoding"] == coding
            assert with_body.headers["vary"] == "accept-encoding"
            assert int(with_body.headers["content-length"]) == len(raw) < len(PROSE)
            assert decode(raw) == PROSE == plain.content
            with_body.close()
        seen.add(with_body.headers["etag"])
    assert len(seen) == 3
    assert made == ["gzip", "zstd"]
    assert "content-encoding" not in pages.get("/large").headers


@pytest.mark.parametrize("path", ["/small", "/binary"])
def test_not_everything_is_coded(pages: Cached, path: str) -> None:
    for _ in range(3):
        response = pages.get(path, GZIP)
        assert "content-encoding" not in response.headers
        assert "vary" not in response.headers


# --- Conditions -----------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", ["cold", "warm"])
def test_not_modified(pages: Cached, temperature: str) -> None:
    if temperature == "warm":
        warm(pages, "/dated")
    tags = {
        coding: pages.get("/dated", ("accept-encoding", coding)).headers["etag"] for coding in ("", "gzip")
    }
    for coding, etag in tags.items():
        for said in (etag, f'"x", W/{etag}', "*"):
            response = pages.get("/dated", ("accept-encoding", coding), ("if-none-match", said))
            assert (response.status_code, response.content) == (304, b"")
            # RFC 9110, section 15.4.5: the fields of a 200, but none of the content's
            assert dict(lines(response, "cache-status", "age", "date")) == {
                "cache-control": CONTROL,
                "etag": etag,
                "vary": "accept-encoding",
            }
            assert response.headers["date"]
        response = pages.get(
            "/dated", ("accept-encoding", coding), ("if-none-match", "no"), ("if-none-match", etag)
        )
        assert response.status_code == 304
        other = tags["gzip" if coding == "" else ""]
        response = pages.get("/dated", ("accept-encoding", coding), ("if-none-match", other))
        assert response.status_code == 200
        assert response.content == PROSE


def test_modified_since(pages: Cached) -> None:
    early, late = "Wed, 01 Jan 2020 00:00:00 GMT", "Tue, 31 Dec 2019 23:59:59 GMT"
    for _ in range(3):
        assert pages.get("/dated", ("if-modified-since", early)).status_code == 304
        assert pages.get("/dated", ("if-modified-since", late)).status_code == 200
        assert pages.get("/dated", ("if-modified-since", "garbage")).status_code == 200
        both = ("if-modified-since", early), ("if-none-match", '"other"')
        assert pages.get("/dated", *both).status_code == 200
        assert pages.get("/large", ("if-modified-since", early)).status_code == 200  # it has no date


@pytest.mark.parametrize("temperature", ["cold", "warm"])
def test_preconditions(pages: Cached, temperature: str) -> None:
    """RFC 9110, section 13.2.2: before If-None-Match, and against the representation that the client would get."""
    if temperature == "warm":
        warm(pages, "/dated")
    etag = pages.get("/dated").headers["etag"]
    late, early = ("if-unmodified-since", DATE), ("if-unmodified-since", "Tue, 31 Dec 2019 23:59:59 GMT")
    for fields in ([("if-match", etag)], [("if-match", "*")], [late], [("if-match", etag), early]):
        response = pages.get("/dated", *fields)
        assert (response.status_code, response.content) == (200, PROSE)
        assert pages.get("/dated", *fields, ("if-none-match", etag)).status_code == 304
    for fields in (
        [("if-match", '"other"')],
        [("if-match", f"W/{etag}")],
        [early],
        [GZIP, ("if-match", etag)],
    ):
        response = pages.get("/dated", *fields, ("if-none-match", "*"))
        assert response.status_code == 412
        assert response.headers["content-type"] == "application/problem+json"
        assert response.json()["code"] == "precondition_failed"
        assert "etag" not in response.headers
        assert pages.get("/dated", *fields, method="HEAD").status_code == 412
    assert pages.get("/large", early).status_code == 200  # it has no date
    assert (
        pages.get("/undecorated", ("if-match", '"x"')).status_code == 412
    )  # it has no entity tag, so not this one


def test_no_content_is_no_content(pages: Cached) -> None:
    """Older JVM clients send `Content-Length: 0` with every GET."""
    first = pages.get("/large", ("content-length", "0"), GZIP)
    assert status(first) == "fwd=uri-miss; stored"
    assert first.headers["content-encoding"] == "gzip"
    for _ in range(3):
        assert status(pages.get("/large", ("content-length", "0"))).endswith("detail=l1")
    assert counts(POLICIES["tests.large"])["hit wire"] > 0
    assert calls["large"] == 1


def test_conditions_of_a_miss(pages: Cached) -> None:
    response = pages.get("/large", ("if-none-match", "*"))
    assert (response.status_code, status(response)) == (304, "fwd=uri-miss; stored")
    assert calls["large"] == 1


@pytest.mark.parametrize(
    "path", ["/large", "/dated", "/status/404", "/undecorated", "/refused", "/huge", "/nowhere"]
)
def test_head_is_the_header_of_get(pages: Cached, path: str) -> None:
    for fields in ([], [GZIP], [("if-none-match", "*")]):
        pages.get(path)
        for _ in range(2):
            got = pages.get(path, *fields)
            head = pages.get(path, *fields, method="HEAD")
            assert head.content == b""
            assert head.status_code == got.status_code
            assert lines(head, "date", "age", "cache-status") == lines(got, "date", "age", "cache-status")


def test_head_fills_the_cache_for_get(pages: Cached) -> None:
    assert pages.get("/large", method="HEAD").headers["content-length"] == str(len(PROSE))
    assert pages.get("/large").content == PROSE
    assert calls["large"] == 1


# --- Answers that are never stored -------------------------------------------------------------------------

UNSTORED = [
    *("/status/404", "/status/500", "/status/503", "/status/201", "/status/204", "/status/301", "/refused"),
    *("/failing", "/cookie", "/private", "/no_store", "/varied", "/coded", "/streamed", "/huge"),
]


@pytest.mark.parametrize("path", UNSTORED)
def test_never_stored(pages: Cached, keys: Keys, path: str) -> None:
    name = path.split("/")[1]
    answers = []
    for number in range(1, 4):
        before = calls[name]
        answers.append(pages.get(path, ("origin", f"https://{number}.example")))
        assert calls[name] > before  # each time anew
    assert len({answer.status_code for answer in answers}) == 1
    assert {key for key in keys() if key.startswith("entry")} == set()
    assert len(pages.cache._memory) == 0
    assert not wire.ready


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/cookie", "it sets a cookie"),
        ("/private", "it has Cache-Control: max-age=5, Private"),
        ("/no_store", "it has Cache-Control: no-store"),
        ("/varied", "it has Vary: Origin"),
        ("/coded", "it has Content-Encoding: x-own"),
        ("/streamed", "it is streamed"),
        ("/huge", "it is larger than 1048576 bytes"),
    ],
)
def test_what_turns_out_not_to_be_storable_is_computed_once_and_said_once(
    pages: Cached, clock: Clock, caplog: pytest.LogCaptureFixture, path: str, reason: str
) -> None:
    name = path[1:]
    pages.get(path)
    assert calls[name] == 2  # for all clients, in vain, and for the client that asked
    for number in range(1, 6):
        assert status(pages.get(path)) == "fwd=bypass"
        assert calls[name] == 2 + number
    said = [record.getMessage() for record in caplog.records if "marked as cached" in record.getMessage()]
    assert said == [
        f"tests.{name} is marked as cached, but an answer of it cannot be: {path}, since {reason}"
    ]
    clock.ahead += PASS_SECONDS + 1  # and then it is tried again
    pages.get(path)
    assert calls[name] == 9


@pytest.mark.parametrize("number", [302, 303, 307, 400, 401, 403, 428, 429])
def test_what_nobody_in_particular_is_refused_is_asked_for_each(pages: Cached, number: int) -> None:
    for _ in range(2):
        assert pages.get(f"/guarded/{number}", ("x-token", "good")).text == "for you"
        refused = pages.get(f"/guarded/{number}")
        assert (refused.status_code, refused.headers["cache-control"]) == (number, "no-store")


def test_what_passes_is_remembered_by_its_key_and_bounded(
    pages: Cached, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.cache.layer.MAX_PASSING", 5)
    for number in range(10):
        pages.get(f"/cookie?n={number}")
    assert [*pages.cache._passing] == [f"/cookie?n={number}" for number in range(5, 10)]
    assert status(pages.get("/large?n=1")) == "fwd=uri-miss; stored"


def test_answers_that_are_not_everybodys_are_made_for_who_asks(pages: Cached) -> None:
    for origin in ("https://a.example", "https://b.example"):
        assert pages.get("/varied", ("origin", origin)).text == origin
    assert "set-cookie" in pages.get("/cookie").headers
    assert pages.get("/streamed").text == "ab"
    assert len(pages.get("/huge").content) == 1024 * 1024 + 1
    assert pages.get("/coded").headers["content-encoding"] == "x-own"


@pytest.mark.parametrize(
    "field",
    [("expect", "something"), ("transfer-encoding", "chunked")],
)
def test_requests_past_the_cache(pages: Cached, keys: Keys, field: tuple[str, str]) -> None:
    for number in range(1, 4):
        response = pages.get("/state", field)
        assert status(response) == "fwd=bypass"
        assert calls["state"] == number
    assert keys() == set()
    warm(pages, "/state")
    assert status(pages.get("/state", field)) == "fwd=bypass"  # and a stored answer is not theirs, either


def test_other_methods_pass(pages: Cached) -> None:
    warm(pages, "/large")
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "PATCH"):
        response = pages.get("/large", method=method)
        assert "cache-status" not in response.headers
    assert calls["large"] == 6


# --- Keys -----------------------------------------------------------------------------------------

HOSTILE = [
    ("x-forwarded-host", "evil.example"),
    ("x-forwarded-for", "6.6.6.6"),
    ("x-forwarded-proto", "https"),
    ("x-forwarded-port", "1"),
    ("x-forwarded-prefix", "/evil"),
    ("forwarded", "for=6.6.6.6;host=evil.example;proto=https"),
    ("x-original-url", "/evil"),
    ("x-rewrite-url", "/evil"),
    ("x-real-ip", "6.6.6.6"),
    ("x-http-method-override", "DELETE"),
    ("x-host", "evil.example"),
    ("accept", "application/evil"),
    ("accept-language", "evil"),
    ("accept-charset", "evil"),
    ("cookie", "session=evil"),
    ("referer", "https://evil.example"),
    ("origin", "https://evil.example"),
    ("user-agent", "evil"),
    ("range", "bytes=0-3"),
    ("cache-control", "no-cache, no-store"),
    ("pragma", "no-cache"),
    ("accept-encoding", "evil"),
    ("te", "trailers"),
    ("script-name", "/evil"),
    ("x-request-id", "evil"),
]


def test_no_field_of_a_request_gets_into_what_is_stored(pages: Cached, keys: Keys) -> None:
    first = pages.get("/state", *HOSTILE)
    assert status(first) == "fwd=uri-miss; stored"
    assert "evil" not in first.text
    assert "6.6.6.6" not in first.text
    assert "evil" not in str(first.headers)
    assert not [name for name in first.json()["meta"] if name.startswith(("HTTP_", "REMOTE_"))]
    for field in HOSTILE:
        response = pages.get("/state", field)
        assert response.status_code == 200
        assert response.content == first.content
        assert status(response).startswith("hit")
    assert keys() == {"entry:/state?", *TAGS}


@pytest.mark.parametrize("host", ["evil.example", "testserver.evil.example", "testserver@evil", "", "a b"])
def test_another_host_is_refused_before_the_cache(pages: Cached, keys: Keys, host: str) -> None:
    warm(pages, "/large")
    request = httpx.Request(
        "GET", f"http://{pages.address[0]}:{pages.address[1]}/large", headers=[("host", host)]
    )
    response = pages.client.send(request)
    assert response.status_code == 400
    assert "cache-status" not in response.headers


@pytest.mark.parametrize(
    "spelling",
    [
        *("/state?n=3&t=a", "/state?t=a&n=3", "/state?&&n=3&t=a&", "/state?n=%33&t=%61", "/st%61te?n=3&t=a"),
        *("/%73%74%61%74%65?%6e=3&t=a", "/state?n=3&t=a#x"),
    ],
)
def test_spellings_of_one_page(pages: Cached, keys: Keys, spelling: str) -> None:
    first = pages.get("/state?n=3&t=a")
    for _ in range(3):
        assert pages.get(spelling).content == first.content
    assert calls["state"] == 1
    assert keys() == {"entry:/state?n=3&t=a", *TAGS}


@pytest.mark.parametrize(
    "query", ["x=1", "n=1&n=1", "n=", "N=1", "n=01", "n=10", "n=1&_=123", "t=%00", "t=%FF", "utm_source=a"]
)
def test_what_is_no_parameter_reaches_no_key(pages: Cached, keys: Keys, query: str) -> None:
    for _ in range(3):
        response = pages.get(f"/state?{query}")
        assert "cache-status" not in response.headers
    assert keys() == set()
    assert not wire.ready


def test_queries_are_decoded_as_the_application_does() -> None:
    """Or the answer to one would be stored as that to another. uvicorn refuses such a target, others may not."""
    with override_settings(ROOT_URLCONF="tests.api.cache.views"):
        plain, percent = _target("/state", "t=é".encode()), _target("/state", b"t=%C3%A9")
        twice = _target("/state", b"t=%C3%83%C2%A9")
        assert plain
        assert plain == percent
        assert twice
        assert plain.key != twice.key
        assert _target("/state", b"t=\xff") is None


def test_long_targets_are_answered_and_not_remembered(pages: Cached) -> None:
    padded = "/large?" + "&" * 5000
    for _ in range(4):
        assert pages.get(padded).content == PROSE
    assert calls["large"] == 1
    assert not wire.ready
    assert pages.cache._remembered.cache_info().currsize == 0


# --- The layer's own life -------------------------------------------------------------------------


def test_lets_everything_through_until_it_is_open(
    prefix: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.ROOT_URLCONF = "tests.api.cache.views"
    with serve(Head(PageCache(LeanASGIHandler())), monkeypatch) as serving:
        for _ in range(2):
            response = serving.client.get("/large", headers={"host": "testserver"})
            assert response.content == PROSE
            assert "cache-status" not in response.headers


def test_one_life_after_the_other(prefix: str, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.ROOT_URLCONF = "tests.api.cache.views"
    views.reset()
    cache = None
    for number in (1, 2):
        with cached(LeanASGIHandler(), monkeypatch, cache=cache) as pages:
            cache = pages.cache
            first = pages.get("/large")
            found = re.sub(r"ttl=\d+", "ttl", status(first))
            assert found == ("fwd=uri-miss; stored" if number == 1 else "hit; ttl; detail=l2")
            warm(pages, "/large")
        assert not wire.ready
        assert (len(cache._memory), cache._memory.bytes) == (0, 0)
    assert calls["large"] == 1


def test_second_tier_alone(prefix: str, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.ROOT_URLCONF = "tests.api.cache.views"
    views.reset()
    with cached(LeanASGIHandler(), monkeypatch, memory=False) as pages:
        assert status(pages.get("/large")) == "fwd=uri-miss; stored"
        for _ in range(5):
            assert status(pages.get("/large", GZIP)).endswith("detail=l2")
        assert not wire.ready


def test_on_django_s_own_handler(prefix: str, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.ROOT_URLCONF = "tests.api.cache.views"
    views.reset()
    with cached(StockASGIHandler(), monkeypatch) as pages:
        warm(pages, "/large")
        assert calls["large"] == 1
        for path in ("/huge", "/streamed", "/cookie", "/varied", "/failing"):
            assert pages.get(path).status_code == (500 if path == "/failing" else 200)
            assert not wire.ready.keys() - {b"/large"}
        gc.collect()  # complains of resources that were not closed
