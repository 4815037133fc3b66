"""What a hit looks like: the same from the wire and from the ASGI layer."""

import gzip
import re
import time
from collections.abc import Callable, Iterator
from email.utils import parsedate_to_datetime
from http.client import HTTPConnection, HTTPMessage
from typing import NamedTuple

import pytest
import zstandard

from ops.project import NAME
from tests.ops.asgi.pages import BODIES, DATE, POLICY
from tests.ops.asgi.views import DEADLINE
from tests.ops.gunicorn.twins import Server, Twins, twins

PAGE, DATED, SMALL, IMAGE = "/page/list", "/page/dated", "/page/small", "/page/image"
DECODERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.decompress,
    "zstd": zstandard.ZstdDecompressor().decompress,
}


class Answer(NamedTuple):
    status: int
    headers: HTTPMessage
    body: bytes


class Client:
    """A keep-alive connection to one of the servers; `tier` is what it counts its hits as."""

    def __init__(self, server: Server, tier: str) -> None:
        self.tier = tier
        host, port = server.address
        self.connection = HTTPConnection(host, port, timeout=DEADLINE)

    def ask(self, target: str = PAGE, method: str = "GET", **fields: str) -> Answer:
        self.connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
        for name, value in {"Host": "localhost", **fields}.items():
            self.connection.putheader(name.replace("_", "-"), value)
        self.connection.endheaders()
        response = self.connection.getresponse()
        return Answer(response.status, response.headers, response.read())


@pytest.fixture(scope="module")
def pair() -> Iterator[Twins]:
    with twins() as pair:
        pair.warm(*(target.encode() for target in (PAGE, DATED, SMALL, IMAGE)))
        yield pair


@pytest.fixture(params=["wire", "l1"])
def client(request: pytest.FixtureRequest, pair: Twins) -> Iterator[Client]:
    client = Client(pair.wire if request.param == "wire" else pair.layer, request.param)
    yield client
    client.connection.close()


OWN = "x-request-id", "x-request-duration", "server-timing"  # of each request
SECURITY = "x-content-type-options", "referrer-policy", "content-security-policy"

# --- Headers --------------------------------------------------------------------------------------


def test_fields(client: Client) -> None:
    status, headers, body = client.ask()
    assert (status, body) == (200, BODIES["list"][1])
    assert headers.keys() == [
        "date", "x-page", "content-type", "cache-control", "etag", "vary", "content-length", "age", "cache-status",
        *OWN, *SECURITY,
    ]  # fmt: skip
    assert headers["content-type"] == "application/json"
    assert headers["cache-control"] == "public, max-age=7200, stale-while-revalidate=60, stale-if-error=60"
    assert headers["vary"] == "accept-encoding"
    assert headers["x-page"].encode("latin-1") == b"\xe9"
    assert int(headers["content-length"]) == len(body)
    assert parsedate_to_datetime(headers["date"]).tzinfo


def test_age_and_what_is_left(client: Client) -> None:
    headers = client.ask().headers
    age = int(headers["age"])
    assert 0 <= age < 60
    assert headers["cache-status"] == f"{NAME}; hit; ttl={7200 - age}; detail=l1"


@pytest.mark.parametrize(
    "sent", ["", "a-well.formed_id~1", "x" * 128, "x" * 129, "no spaces", '"quoted"', "é"]
)
def test_request_id(client: Client, sent: str) -> None:
    first, second = (
        client.ask(X_Request_ID=sent).headers["x-request-id"]
        if sent
        else client.ask().headers["x-request-id"]
        for _ in range(2)
    )
    if re.fullmatch(r"[A-Za-z0-9._~-]{1,128}", sent):
        assert first == second == sent
    else:
        assert first != second
        assert re.fullmatch(r"[0-9a-f]{32}", first)


def test_timing(client: Client) -> None:
    headers = client.ask().headers
    stages = dict(re.findall(r"(\w+);dur=([\d.]+)", headers["server-timing"]))
    assert [*stages] == ["middleware", "auth", "db", "serialisation", "response", "cache"]
    assert sum(map(float, stages.values())) == pytest.approx(
        float(headers["x-request-duration"]) * 1e3, abs=0.004
    )


def test_times_go_on(client: Client) -> None:
    first, until = client.ask().headers, time.monotonic() + DEADLINE
    while any(
        (last := client.ask().headers)[name] == first[name] for name in ("date", "age", "cache-status")
    ):
        assert time.monotonic() < until
    assert last["cache-status"].endswith(f"ttl={7200 - int(last['age'])}; detail=l1")


def test_last_modified_is_kept(client: Client) -> None:
    assert client.ask(DATED).headers["last-modified"] == DATE


# --- Variants -------------------------------------------------------------------------------------


@pytest.mark.parametrize("coding", DECODERS)
def test_coding(client: Client, coding: str) -> None:
    plain, coded = client.ask(), client.ask(Accept_Encoding=coding)
    assert coded.headers["content-encoding"] == coding
    assert DECODERS[coding](coded.body) == plain.body
    assert int(coded.headers["content-length"]) == len(coded.body) < len(plain.body)
    assert coded.headers["vary"] == plain.headers["vary"]
    assert coded.headers["etag"] == plain.headers["etag"][:-1] + f'-{coding}"'


@pytest.mark.parametrize("accepted", ["", "br", "identity", "gzip;q=0", "*;q=0", "gzip;q=0.1, identity"])
def test_no_coding(client: Client, accepted: str) -> None:
    answer = client.ask(Accept_Encoding=accepted)
    assert "content-encoding" not in answer.headers
    assert answer.body == BODIES["list"][1]


@pytest.mark.parametrize("target", [SMALL, IMAGE])
def test_what_is_not_worth_a_coding(client: Client, target: str) -> None:
    answer = client.ask(target, Accept_Encoding="gzip, zstd")
    assert {"content-encoding", "vary"}.isdisjoint(answer.headers)
    assert answer.body == BODIES[target.split("/")[2]][1]


# --- Conditions -----------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["{}", "W/{}", '"x", {}', '"x",W/{} , "y"', "*"])
def test_unchanged(client: Client, form: str) -> None:
    known = client.ask().headers
    status, headers, body = client.ask(If_None_Match=form.format(known["etag"]))
    assert (status, body) == (304, b"")
    assert headers.keys() == ["date", "cache-control", "etag", "vary", "age", "cache-status", *OWN]
    assert all(headers[name] == known[name] for name in ("cache-control", "etag", "vary"))


@pytest.mark.parametrize("form", ['"x"', "{}x", "x{}", ""])
def test_changed(client: Client, form: str) -> None:
    etag = client.ask().headers["etag"].strip('"')
    assert client.ask(If_None_Match=form.format(etag)).status == 200


@pytest.mark.parametrize("coding", DECODERS)
def test_condition_is_of_the_variant(client: Client, coding: str) -> None:
    plain, coded = (client.ask(Accept_Encoding=accepted).headers["etag"] for accepted in ("", coding))
    assert client.ask(If_None_Match=coded, Accept_Encoding=coding).status == 304
    assert client.ask(If_None_Match=plain, Accept_Encoding=coding).status == 200
    assert client.ask(If_None_Match=coded).status == 200


@pytest.mark.parametrize(
    ("since", "status"),
    [
        (DATE, 304),
        ("Wed, 21 Oct 2015 07:28:01 GMT", 304),
        ("Wed, 21 Oct 2015 07:27:59 GMT", 200),
        ("yesterday", 200),
    ],
)
def test_modified(client: Client, since: str, status: int) -> None:
    assert client.ask(DATED, If_Modified_Since=since).status == status
    assert client.ask(DATED, If_Modified_Since=since, If_None_Match='"x"').status == 200
    assert client.ask(PAGE, If_Modified_Since=since).status == 200


# --- HEAD -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", [PAGE, DATED, SMALL])
@pytest.mark.parametrize("fields", [{}, {"Accept_Encoding": "gzip"}, {"If_None_Match": "*"}])
def test_head(client: Client, target: str, fields: dict[str, str]) -> None:
    asked, got = client.ask(target, "HEAD", **fields), client.ask(target, **fields)
    assert asked.status == got.status
    assert asked.body == b""
    ticking = {"date", "age", "cache-status", *OWN}
    assert [pair for pair in asked.headers.items() if pair[0] not in ticking] == [
        pair for pair in got.headers.items() if pair[0] not in ticking
    ]


# --- Counters -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "fields", "outcome"),
    [
        ("GET", {}, "hit"),
        ("HEAD", {}, "hit"),
        ("GET", {"If_None_Match": "*"}, "hit"),
        ("GET", {"Accept_Encoding": "gzip"}, "hit"),
        ("GET", {"Cookie": "a=b", "Cache_Control": "no-store", "Range": "bytes=0-1"}, "hit"),
        ("GET", {"Content_Length": "0"}, "hit"),
        ("GET", {"Expect": "100-continue"}, "bypass"),
    ],
)
def test_counts(client: Client, method: str, fields: dict[str, str], outcome: str) -> None:
    before = POLICY.counts.copy()
    for _ in range(3):
        client.ask(PAGE, method, **fields)
    tier = client.tier if outcome == "hit" else "none"
    assert POLICY.counts - before == {(outcome, tier): 3}
