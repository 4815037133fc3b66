"""A request with an Idempotency-Key and the same one again: its answers, their cost, the refusals."""

import threading
from collections.abc import Callable
from typing import Any

import httpx
import psycopg
import pytest

from tests.api.idempotency.conftest import voucher
from tests.service import Service
from tests.wiretap import Wiretap

Vouchers = Callable[[dict[str, Any]], int]
Rows = psycopg.Connection[Any]
FIELD, REPLAYED = "Idempotency-Key", "idempotency-replayed"
OWN_FIELDS = {"date", "x-request-id", "x-request-duration", "server-timing", REPLAYED}  # of each answer


def kept_fields(answer: httpx.Response) -> dict[str, str]:
    return {name: value for name, value in answer.headers.items() if name not in OWN_FIELDS}


def code_of(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


def test_the_answer_comes_again_from_any_worker(workers: list[Service], key: str, vouchers: Vouchers) -> None:
    content = voucher()
    first, *again = [
        worker.client.post("/api/vouchers", json=content, headers={FIELD: key})
        for worker in (*workers, workers[0])
    ]
    assert first.status_code == 201
    assert REPLAYED not in first.headers
    for answer in again:
        assert (answer.status_code, answer.content) == (201, first.content)
        assert kept_fields(answer) == kept_fields(first)
        assert answer.headers[REPLAYED] == "true"
        assert answer.headers["x-request-id"] != first.headers["x-request-id"]
    assert {"location", "etag", "content-type"} <= kept_fields(first).keys()
    assert vouchers(content) == 1
    # The write with a key invalidates as the one without.
    assert workers[0].client.get("/api/vouchers").json()["results"][-1] == first.json()
    quoted = workers[1].client.post("/api/vouchers", json=content, headers={FIELD: f'"{key}"'})
    assert quoted.headers[REPLAYED] == "true"


def test_without_the_field_nothing_is_kept(workers: list[Service], rows: Rows, vouchers: Vouchers) -> None:
    content = voucher()
    answers = [workers[0].client.post("/api/vouchers", json=content) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [201, 409]
    assert rows.execute("SELECT FROM api_idempotency_key").fetchall() == []


@pytest.mark.lean
def test_what_it_costs(workers: list[Service], wire: Wiretap, key: str, rows: Rows) -> None:
    """Each statement is a round trip, but for the second and the third, which are sent together."""
    client = workers[1].client

    def statements(content: dict[str, Any], key: str) -> list[str]:
        wire.clear()
        client.post("/api/vouchers", json=content, headers={FIELD: key} if key else {})
        assert not any(message.kind == "Q" for message in wire.messages)
        return [sql.strip()[:22] for sql, _ in wire.bound if "pg_settings" not in sql]  # of a new connection

    known, unknown = voucher(), voucher(category="no-such")
    for content, name in ((voucher(), ""), (voucher(), "a"), (unknown, "b")):  # are prepared
        statements(content, f"{name and key}{name}")
    claimed = ["BEGIN ISOLATION LEVEL ", "SELECT pg_try_advisory", "SELECT request, status"]
    immediate, create, keep = "SET CONSTRAINTS ALL IM", 'WITH "not written"(c0)', "WITH deleted AS (\n    "
    assert statements(voucher(), "") == [create]
    assert statements(known, f"{key}c") == [*claimed, immediate, create, keep, "COMMIT"]
    assert statements(known, f"{key}c") == [*claimed, "ROLLBACK"]
    assert statements(unknown, f"{key}d") == [*claimed, immediate, create, "ROLLBACK", keep]
    assert statements({}, f"{key}e") == [*claimed, "ROLLBACK", keep]

    def has_sent_one() -> bool:
        sent = "".join(sql for sql, _ in wire.bound)
        return "pg_try_advisory" in sent and "SELECT request, status" not in sent

    wire.withholds = has_sent_one
    try:
        assert statements(voucher(), f"{key}f") == [*claimed, immediate, create, keep, "COMMIT"]
    finally:
        wire.withholds = lambda: False


def test_a_key_is_one_requests(workers: list[Service], key: str, vouchers: Vouchers) -> None:
    content = voucher()

    def post(path: str = "/api/vouchers", **options: Any) -> httpx.Response:
        headers = {FIELD: key, **options.pop("headers", {})}
        return workers[0].client.post(path, **{"json": content} | options, headers=headers)

    assert post().status_code == 201
    for answer in (
        post(json=content | {"note": "x"}),
        post("/api/vouchers?x=1"),
        post(headers={"content-type": "application/json; charset=utf-8"}),
        post(json={}),
    ):
        assert code_of(answer) == (422, "idempotency_key_reused")
        assert [fault["parameter"] for fault in answer.json()["errors"]] == [FIELD]
    assert post().headers[REPLAYED] == "true"
    assert vouchers(content) == 1
    elsewhere = post("/once/required")  # another path: the key is not known there, the code of the voucher is
    assert (elsewhere.status_code, elsewhere.json()["code"]) == (409, "conflict")
    assert REPLAYED not in elsewhere.headers


def test_a_key_is_one_clients(workers: list[Service], key: str, vouchers: Vouchers) -> None:
    ours, theirs = voucher(), voucher()

    def post(name: str, content: dict[str, Any]) -> httpx.Response:
        headers = {FIELD: key, "Authorization": f"Bearer {name}"}
        return workers[0].client.post("/once/mine", json=content, headers=headers)

    first, other = post("ada", ours), post("bob", theirs)
    assert (first.status_code, other.status_code) == (201, 201)
    assert post("ada", ours).json() == first.json() != other.json()
    assert post("bob", theirs).headers[REPLAYED] == "true"
    assert (vouchers(ours), vouchers(theirs)) == (1, 1)
    refused = workers[0].client.post("/once/mine", json=ours, headers={FIELD: key})
    assert code_of(refused) == (401, "unauthenticated")
    foreign = workers[0].client.post("/once/foreign", json=ours, headers={FIELD: key})
    assert code_of(foreign) == (500, "internal_error")
    assert b"an api.Identity, not str" in workers[0].log.read_bytes()


@pytest.mark.parametrize("outcome", ["400", "404", "409", "410", "412", "422"])
def test_a_refusal_undoes_the_write_and_is_kept(
    workers: list[Service], key: str, vouchers: Vouchers, outcome: str
) -> None:
    content = voucher()
    client = workers[0].client
    headers = {FIELD: key, "outcome": outcome}
    refused = client.post("/once/outcomes", json=content, headers=headers)
    assert refused.status_code == int(outcome)
    again = client.post("/once/outcomes", json=content, headers={FIELD: key})
    assert (again.status_code, again.content) == (int(outcome), refused.content)
    assert kept_fields(again) == kept_fields(refused)
    assert (again.headers[REPLAYED], again.headers["x-own"]) == ("true", "mine")
    assert vouchers(content) == 0


@pytest.mark.parametrize(
    "outcome", ["401", "403", "408", "425", "429", "500", "503", "error", "cookie", "stream", "large"]
)
def test_others_undo_the_write_and_release_the_key(
    workers: list[Service], key: str, vouchers: Vouchers, outcome: str
) -> None:
    content = voucher()
    client = workers[0].client
    headers = {FIELD: key, "outcome": outcome}
    refused = client.post("/once/outcomes", json=content, headers=headers)
    assert refused.status_code == (int(outcome) if outcome.isdigit() else 500)
    assert vouchers(content) == 0
    again = client.post("/once/outcomes", json=content, headers={FIELD: key})
    while again.status_code == 409:  # until Postgres has rolled back
        again = client.post("/once/outcomes", json=content, headers={FIELD: key})
    assert again.status_code == 201, again.text
    assert REPLAYED not in again.headers
    assert vouchers(content) == 1


def test_refusals_of_the_content_and_of_the_database_are_kept(
    workers: list[Service], key: str, rows: Rows, vouchers: Vouchers
) -> None:
    client = workers[0].client
    taken = voucher()
    client.post("/api/vouchers", json=taken)
    for content, said in (
        ({}, (422, "invalid_parameter")),
        (voucher(category="no-such"), (422, "invalid_parameter")),
        (voucher(partner_id=2**62), (422, "invalid_parameter")),
        (taken | {"percent": 29_999}, (409, "conflict")),
    ):
        headers = {FIELD: f"{key}-{said[0]}-{'-'.join(content)}-{content.get('category')}"}
        refused, again = (client.post("/api/vouchers", json=content, headers=headers) for _ in range(2))
        assert code_of(refused) == said
        if "partner_id" in content:
            assert [fault["parameter"] for fault in refused.json()["errors"]] == ["partner_id"]
        assert (again.content, again.headers[REPLAYED]) == (refused.content, "true")
    rows.execute("DELETE FROM shop_voucher WHERE code = %s", [taken["code"]])
    assert client.post("/api/vouchers", json=content, headers=headers).content == refused.content


def test_an_answer_without_content(workers: list[Service], key: str) -> None:
    headers = {FIELD: key, "outcome": "204"}
    first, again = (
        worker.client.post("/once/outcomes", json=content, headers=headers)
        for content in [voucher()]
        for worker in workers
    )
    assert (first.status_code, "content-type" in first.headers) == (204, False)
    assert (again.status_code, "content-type" in again.headers, REPLAYED in again.headers) == (
        204,
        False,
        True,
    )


def test_an_endpoint_as_ninjas_own_are(workers: list[Service], key: str) -> None:
    headers = {FIELD: key}
    first, again = (workers[0].client.post("/once/plain/7", headers=headers) for _ in range(2))
    assert (first.status_code, first.json()["number"]) == (202, 7)
    assert first.headers["x-calls"] == str(first.json()["calls"])
    assert (again.status_code, again.content, again.headers["x-calls"]) == (
        *(202, first.content),
        first.headers["x-calls"],
    )
    other = workers[0].client.post("/once/plain/8", headers=headers)
    assert other.json() == {"number": 8, "calls": first.json()["calls"] + 1}
    assert workers[0].client.post("/once/plain/x", headers=headers).status_code == 422


GOOD = [
    "a",
    "0" * 255,
    '"b c"',
    '"' + "1" * 255 + '"',
    "A-Z_a.z~0:9/+=@(!)<>[]{}^`|'#$%&*?",
    r'"a\"b\\c"',
    '"a,b;c"',
]
BAD = [
    *("", '""', "a" * 256, '"' + "a" * 256 + '"', "a b", "a,b", "a;b", "a\\b", 'a"b', '"a', 'a"', '"a"b"'),
    *('"a\\b"', '"a";p=1', '"a", "b"', "é", '"é"', "a\tb"),
]


@pytest.mark.parametrize("field", GOOD)
def test_keys_that_can_be_read(workers: list[Service], vouchers: Vouchers, field: str) -> None:
    content = voucher()
    client = workers[0].client
    answers = [client.post("/api/vouchers", json=content, headers={FIELD: field}) for _ in range(2)]
    assert [answer.headers.get(REPLAYED) for answer in answers if answer.status_code == 201] == [None, "true"]


@pytest.mark.parametrize("field", BAD, ids=ascii)
def test_keys_that_cannot_be_read(workers: list[Service], wire: Wiretap, field: str) -> None:
    wire.clear()
    headers = {FIELD: field.encode("latin-1")}
    refused = workers[0].client.post("/api/vouchers", json=voucher(), headers=headers)  # type: ignore[arg-type]
    assert code_of(refused) == (400, "idempotency_key_invalid")
    assert [fault["parameter"] for fault in refused.json()["errors"]] == [FIELD]
    assert wire.executions == 0


def test_two_fields(workers: list[Service], wire: Wiretap) -> None:
    wire.clear()
    fields = [(FIELD, "a"), (FIELD, "b")]
    refused = workers[0].client.post("/api/vouchers", json=voucher(), headers=fields)
    assert code_of(refused) == (400, "idempotency_key_invalid")
    assert wire.executions == 0


def test_required_and_unsupported(workers: list[Service], key: str, vouchers: Vouchers) -> None:
    content = voucher()
    client = workers[0].client
    assert code_of(client.post("/once/required", json=content)) == (400, "idempotency_key_required")
    unsupported = client.post("/once/unsupported", json=content, headers={FIELD: key})
    assert code_of(unsupported) == (400, "idempotency_key_unsupported")
    assert vouchers(content) == 0
    assert client.post("/once/required", json=content, headers={FIELD: key}).status_code == 201
    assert client.post("/once/unsupported", json=voucher()).status_code == 201
    # Where the method itself makes it safe to send again, the field has no meaning.
    assert client.get("/api/vouchers", headers={FIELD: key}).status_code == 200


@pytest.mark.lean
def test_the_database_is_away(workers: list[Service], wire: Wiretap, key: str, vouchers: Vouchers) -> None:
    """No answer of it: nothing was written, and the key is free."""
    content = voucher()
    stuck = threading.Event()
    wire.withholds = lambda: not stuck.is_set()
    try:
        away = workers[0].client.post("/api/vouchers", json=content, headers={FIELD: key})
    finally:
        stuck.set()
        wire.withholds = lambda: False
    assert code_of(away) == (503, "database_unavailable")
    again = workers[0].client.post("/api/vouchers", json=content, headers={FIELD: key})
    while again.status_code in (409, 503):
        again = workers[0].client.post("/api/vouchers", json=content, headers={FIELD: key})
    assert again.status_code == 201
    assert vouchers(content) == 1
