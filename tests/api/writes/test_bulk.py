"""POST, PATCH and DELETE of many rows: all or nothing, each fault by its item, and their cost."""

import asyncio
import datetime
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import httpx
import pytest
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest
from django.test import Client, RequestFactory
from django.urls import resolve

from api import BulkWrites, Fault, Problem, Timestamp, transaction
from api.writes.inputs import Items
from ops.postgres.pool import open_pool
from tests.api.writes.test_declaration import writes_of
from tests.api.writes.test_refusals import said
from tests.extra import OWN_SESSIONS
from tests.service import Service, serve
from tests.shop.commands import STRICT_WRITES, VOUCHER_BULK
from tests.shop.models import Voucher
from tests.spare import Database
from tests.wiretap import Wiretap

URL = "/api/vouchers/bulk"
MIB = 1024 * 1024
JSON = {"content-type": "application/json"}
MINIMAL = {"Prefer": "return=minimal"}
Faults = list[tuple[str, str]]


def vouchers(*changes: dict[str, Any], start: int = 0) -> list[dict[str, Any]]:
    """Items that can be created, each with the changes of its place."""
    good: dict[str, Any] = {"category": "garden", "kind": "sale"}
    return [{"code": f"b{n}", "percent": n, **good} | more for n, more in enumerate(changes, start)]


def delete(api: httpx.Client, content: Any, **options: Any) -> httpx.Response:
    return api.request("DELETE", URL, json=content, **options)


def database() -> Database:
    return Database(str(settings.DATABASES["default"]["NAME"]))


def stored(column: str = "id") -> list[Any]:
    with database().connect() as connection:
        return [value for (value,) in connection.execute(f"SELECT {column} FROM shop_voucher ORDER BY id")]


@pytest.fixture
def created(api: httpx.Client) -> list[Any]:
    """Three vouchers' ids."""
    response = api.post(URL, json=vouchers({}, {}, {}), headers=MINIMAL)
    assert response.status_code == 201, response.text
    ids: list[Any] = response.json()
    return ids


def test_many_vouchers_through_their_life(api: httpx.Client) -> None:
    """The answers are what GETs answer, in the order of the items."""
    items = vouchers(
        {"percent": 9, "category": "art", "details": {"a": ['"\\', None]}, "note": 'a "quoted" \\ é😀 {,}'},
        {"percent": 7, "starts": "2030-01-01", "ends": "2030-02-01", "partner_id": 1},
        {"percent": 8, "kind": "gift", "uses": 3.0},
    )
    response = api.post(URL, json=items)
    assert (response.status_code, response.headers.get("preference-applied")) == (201, None)
    rows = response.json()
    assert [{name: row[name] for name in item} for row, item in zip(rows, items, strict=True)] == items
    assert [(row["note"], row["uses"]) for row in rows] == [(items[0]["note"], 0), ("", 0), ("", 3)]

    def got(ids: list[Any]) -> bytes:
        return b"[" + b",\n".join(api.get(f"/api/vouchers/{each}").content for each in ids) + b"]"

    ids = [row["id"] for row in rows]
    assert response.content == got(ids)

    order = [ids[2], ids[0], ids[1]]
    changes: list[dict[str, Any]] = [
        {"uses": 5, "note": "x"},
        {"details": None},
        {"category": "art", "partner_id": None},
    ]
    patch: list[dict[str, Any]] = [{"id": each} | change for each, change in zip(order, changes, strict=True)]
    patched = api.patch(URL, json=patch, headers={"content-type": "application/merge-patch+json"})
    assert patched.status_code == 200, patched.text
    before: dict[Any, dict[str, Any]] = {row["id"]: row for row in rows}
    assert patched.json() == [before[item["id"]] | item for item in patch]
    assert patched.content == got(order)
    assert api.patch(URL, json=[{"id": each} for each in order]).content == patched.content

    assert delete(api, order[:2]).status_code == 204
    assert [api.get(f"/api/vouchers/{each}").status_code for each in order] == [404, 404, 200]


@pytest.mark.parametrize(
    ("preferred", "applied"),
    [
        ("return=minimal", "return=minimal"),
        ('respond-async, RETURN = "minimal"; foo=bar', "return=minimal"),
        ("return=representation", "return=representation"),
        ("return=nothing", None),
        ("wait=10, handling=strict", None),
    ],
)
def test_preferences(api: httpx.Client, created: list[Any], preferred: str, applied: str | None) -> None:
    changed = api.patch(URL, json=[{"id": created[1], "uses": 7}], headers={"Prefer": preferred})
    assert changed.headers.get("preference-applied") == applied
    found = changed.json()[0]
    assert found == created[1] if applied == "return=minimal" else found["uses"] == 7


@pytest.mark.lean
def test_one_statement_in_one_round_trip(api: httpx.Client, wiretap: Wiretap) -> None:
    """For a thousand items as for one."""
    items = vouchers(*[{}] * 1000)
    api.post(URL, json=items[:1], headers=MINIMAL)
    for each in (items[1:2], items[2:]):
        wiretap.clear()
        ids = api.post(URL, json=each, headers=MINIMAL).json()
        assert [message.kind for message in wiretap.messages] == ["B", "D", "E", "S"]
    api.patch(URL, json=[{"id": ids[0]}])
    delete(api, ids[:1])
    writes: list[Callable[[], httpx.Response]] = [
        lambda: api.patch(URL, json=[{"id": each, "uses": each} for each in ids[1:]]),
        lambda: delete(api, ids[1:]),
    ]
    for write in writes:
        wiretap.clear()
        assert write().is_success
        assert [message.kind for message in wiretap.messages] == ["B", "D", "E", "S"]
    assert len(stored()) == 3


def test_the_endpoints_have_the_limits_of_bulk() -> None:
    view: Any = resolve(URL, "tests.shop.urls").func
    assert view.rate_classes == dict.fromkeys(("POST", "PATCH", "DELETE"), "bulk")
    assert view.body_limits == dict.fromkeys(("POST", "PATCH", "DELETE"), 4 * MIB)


BY_EDGE: list[tuple[str, Any, Faults]] = [
    ("POST", [], [("items", "empty")]),
    ("POST", [{}] * 1001, [("items", "too_many")]),
    ("POST", vouchers({}, {"code": ""}, {"uses": "1", "x": 1}), [
        *(("items[1].code", "empty"), ("items[2].uses", "malformed"), ("items[2].x", "unknown"))]),
    ("POST", vouchers({}, {"id": 7, "percent": None}), [("items[1].percent", "null"), ("items[1].id", "unknown")]),
    ("POST", [*vouchers({}), 7, None, []], [(f"items[{n}]", "malformed") for n in (1, 3)] + [("items[2]", "null")]),
    ("POST", vouchers({}, {"details": {"a": ["\0"]}}, {"note": "\0"}), [
        *(("items[1].details", "encoding"), ("items[2].note", "encoding"))]),
    ("POST", b'[{"code":"a"},{"code":"b","code":"c"}]', [("items[1].code", "repeated")]),
    ("POST", [{f"m{m:03}": 1 for m in range(500)}] * 100, [(f"items[0].m{m:03}", "unknown") for m in range(10)]),
    ("POST", vouchers({"note": "\0"}), [("items[0].note", "encoding")]),
    ("PATCH", b'[{"id":1,"uses":1},{"id":2,"uses":1,"uses":1}]', [("items[1].uses", "repeated")]),
    ("PATCH", b'[{"id":1,"uses":1,"uses" \n:2}]', [("items[0].uses", "repeated")]),
    ("POST", b'[{"code":"\\ud800"}]', [("items[0].code", "encoding")]),
    ("POST", b'[7,{"details":{"a":' + b"[" * 64 + b"]" * 64 + b"}}]", [("items[1].details", "too_deep")]),
    ("POST", b"[7," + b"[" * 200_000 + b"]" * 200_000 + b"]", [("items[1]", "too_deep")]),
    ("PATCH", [{"uses": 1}], [("items[0].id", "missing")]),
    ("PATCH", [{"id": 1}, {"id": "2"}, {"id": 2**63}], [
        *(("items[1].id", "malformed"), ("items[2].id", "out_of_range"))]),
    ("PATCH", [{"id": n} for n in (1, 2, 1, 3, 3, 1)], [(f"items[{n}].id", "repeated") for n in (2, 4, 5)]),
    ("PATCH", [{"id": 1}, {"id": 2, "details": {}}], [("items[1].details", "unsupported_merge")]),
    ("DELETE", [1, 2, 1], [("items[2]", "repeated")]),
    ("DELETE", [1, "2", 1.5, True, {"id": 1}], [(f"items[{n}]", "malformed") for n in range(1, 5)]),
    ("DELETE", [None, 2**70], [("items[0]", "null"), ("items[1]", "out_of_range")]),
    ("DELETE", b'["\\ud800"]', [("items[0]", "encoding")]),
]  # fmt: skip


@pytest.mark.parametrize(("method", "content", "faults"), BY_EDGE, ids=lambda value: str(value)[:40])
def test_faults_that_no_statement_finds(
    api: httpx.Client, wiretap: Wiretap, method: str, content: Any, faults: Faults
) -> None:
    wiretap.clear()
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    response = api.request(method, URL, content=body, headers=JSON)
    status, code, found = said(response)
    assert (status, code, sorted(found)) == (422, "invalid_parameter", sorted(faults))
    assert wiretap.executions == 0


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", b"7", b"[", b"[1", b"[1,", b"[1,]", b"[1 2]", b"[1]]", b"[1]x", b"[NaN]", b"[\xff]", b"\xef[]"],
    ids=repr,
)  # fmt: skip
def test_no_json_array(api: httpx.Client, content: bytes) -> None:
    response = api.request("DELETE", URL, content=content, headers=JSON)
    assert said(response) == (400, "malformed_json", [])


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (b'[1, "a":]', None),
        (b'[1, "a"]', [1, "a"]),
        (b' [ {"a" : 1 , "b":2} ] ', [{"a": 1, "b": 2}]),
        (b'[{"a":":"}]', None),  # may be, and is read strictly
        (b'[{"a":1,"a":2}]', None),
        (b'[{"a":1,"a" :2}]', None),
        (b'[{"a":[]}]', None),
        (b'["\\u0000"]', None),
        (b"[NaN]", None),
        (b"[-Infinity]", None),
        (b"[]", None),
        (b"[1,2,3]", None),
        (b"{}", None),
    ],
)
def test_content_that_is_flat(body: bytes, found: list[Any] | None) -> None:
    """It is read by pydantic alone, which sees neither members that come twice nor texts that cannot be stored."""
    items = Items(Any, Any)
    items.names = frozenset("ab")
    assert items.read_flat(body, 2) == found


@pytest.mark.parametrize(
    "body",
    [
        b'[{"code":"b1","percent":7,"category":"garden","starts":"2030-01-01"}]',
        b'[{"code":"b1","percent":7.0,"category":"garden","starts":"2030-01-01"}]',
        b'[{"code":"b\\u0031","percent":7,"category":"garden","starts":"2030-01-01"}]',
    ],
)
def test_both_readers_read_the_same(body: bytes) -> None:
    row = {"code": "b1", "percent": 7, "category": "garden", "starts": datetime.date(2030, 1, 1)}
    creations = VOUCHER_BULK.creations
    assert creations.read(body) == [row]
    assert creations.read_flat(body, 9) in ([row], None)


@pytest.mark.parametrize(
    ("moment", "is_quick", "is_taken"),
    [
        ("2020-01-01T00:00:00.5+14:00", True, True),
        ("8999-12-31T23:59:59-14:59", True, True),
        ("9999-12-31T23:59:59Z", False, True),
        ("9999-12-31T23:59:59-01:00", False, False),
        ("9999-12-31T23:59:60Z", False, False),
        ("0001-01-01T00:00:00+01:00", False, False),
        ("2020-01-01T00:00:60Z", False, False),
    ],
)
def test_both_readers_take_the_same_moments(
    monkeypatch: pytest.MonkeyPatch, moment: str, *, is_quick: bool, is_taken: bool
) -> None:
    """The quick one leaves a text to Postgres, which has moments of the year 10000. Python and cursors have none."""
    monkeypatch.setattr("api.reads.listing.LISTINGS", [])
    creations = BulkWrites(writes_of("moment", Timestamp | None)).creations
    body = json.dumps([{"moment": moment}]).encode()
    assert creations.read_flat(body, 9) == ([{"moment": moment}] if is_quick else None)
    with nullcontext() if is_taken else pytest.raises(Problem, match="RFC 3339"):
        assert creations.read(body) == [{"moment": datetime.datetime.fromisoformat(moment)}]


def test_white_space_between_items(api: httpx.Client, created: list[Any]) -> None:
    content = " \t\n[ {\n},\r\n".replace("{\n}", json.dumps(created[0])) + f"{created[1]} ] \n"
    assert api.request("DELETE", URL, content=content, headers=JSON).status_code == 204


def test_requests_that_are_no_bulk_writes(api: httpx.Client, created: list[Any]) -> None:
    patch = [{"id": created[0], "uses": 1}]
    for header in ("If-Match", "If-None-Match"):
        refused = api.patch(URL, json=patch, headers={header: "*"})
        assert said(refused) == (400, "unsupported_precondition", [])
    assert said(api.patch(f"{URL}?x=1", json=patch)) == (422, "invalid_parameter", [("x", "unknown")])
    text = api.patch(URL, content=b"[]", headers={"content-type": "text/plain"})
    assert said(text) == (415, "unsupported_media_type", [])
    assert text.headers["accept-patch"] == "application/merge-patch+json, application/json"
    for size, status in ((3 * MIB, 201), (4 * MIB, 413)):
        response = api.post(URL, json=vouchers({"note": "x" * size}, start=9), headers=MINIMAL)
        assert response.status_code == status
    with pytest.raises(ImproperlyConfigured, match="strict"):
        BulkWrites(STRICT_WRITES)


def test_rows_that_are_not_there(api: httpx.Client, created: list[Any], wiretap: Wiretap) -> None:
    """They are named by item and field, by the statement itself, and nothing is written."""
    gone = [2**40, 2**62]
    before = stored("to_jsonb(shop_voucher)")
    api.patch(URL, json=[{"id": created[0], "uses": 0}])
    wiretap.clear()
    refused = [
        api.post(URL, json=vouchers({}, {"category": "no"}, {}, {"category": "nor"}, start=10)),
        api.patch(URL, json=[{"id": created[1], "uses": 9}, {"id": gone[0]}, {"id": created[0], "category": "no"}]),
        delete(api, [*created, *gone]),
    ]  # fmt: skip
    assert [said(each) for each in refused] == [
        (422, "invalid_parameter", [("items[1].category", "no_such_row"), ("items[3].category", "no_such_row")]),
        (422, "invalid_parameter", [("items[1].id", "no_such_row"), ("items[2].category", "no_such_row")]),
        (422, "invalid_parameter", [("items[3]", "no_such_row"), ("items[4]", "no_such_row")]),
    ]  # fmt: skip
    assert wiretap.executions == 3
    many = delete(api, [*range(2**50, 2**50 + 900)])
    assert [place for place, _ in said(many)[2]] == [f"items[{n}]" for n in range(10)]
    assert stored("to_jsonb(shop_voucher)") == before


CONFLICT, INVALID = (409, "conflict"), (422, "invalid_parameter")
BROKEN: list[tuple[dict[str, Any], tuple[int, str], Faults]] = [
    ({"code": "b0"}, CONFLICT, [("code", "not_unique")]),
    ({"percent": 0}, CONFLICT, [("percent", "not_unique"), ("category", "not_unique")]),
    ({"starts": "2030-02-01", "ends": "2030-01-01"}, INVALID, [("starts", "backwards"), ("ends", "backwards")]),
    ({"kind": "gift", "starts": "2029-01-01", "ends": "2031-01-01"}, CONFLICT, [
        *(("starts", "excluded"), ("ends", "excluded"))]),
    ({"partner_id": 2**62}, INVALID, [("partner_id", "no_such_row")]),
]  # fmt: skip


@pytest.mark.parametrize(("change", "refusal", "faults"), BROKEN, ids=str)
def test_rules_of_the_database(
    api: httpx.Client, wiretap: Wiretap, change: dict[str, Any], refusal: tuple[int, str], faults: Faults
) -> None:
    """The item is found, among a hundred, and nothing is written. Items break rules among themselves, too."""
    gift = {"kind": "gift", "starts": "2030-01-01", "ends": "2030-02-01"}
    items = vouchers(gift, *[{}] * 99)
    items[63] |= change
    expected = (*refusal, [(f"items[63].{name}", fault) for name, fault in faults])
    wiretap.clear()
    assert said(api.post(URL, json=items)) == expected
    assert wiretap.executions <= 1 + 2 + 3 * 8 + 1  # BEGIN, its settings, savepoints, ROLLBACK
    assert stored() == [1]

    del items[63]
    ids = api.post(URL, json=items, headers=MINIMAL).json()
    before = stored("to_jsonb(shop_voucher)")
    patch = [{"id": each, "uses": 1} for each in ids]
    patch[63] |= change
    assert said(api.patch(URL, json=patch)) == expected
    assert stored("to_jsonb(shop_voucher)") == before


def test_rows_that_others_refer_to(api: httpx.Client, created: list[Any]) -> None:
    rows = {row["slug"]: row["id"] for row in api.get("/api/categories").json()["results"]}
    api.patch(URL, json=[{"id": each, "category": "garden"} for each in created])
    free = [each for slug, each in rows.items() if slug not in ("garden", "art")]
    used = api.request("DELETE", "/api/categories/bulk", json=[rows["garden"], *free])
    assert said(used) == (409, "still_referenced", [("items[0]", "still_referenced")])
    assert len(api.get("/api/categories").json()["results"]) == len(rows)


def test_values_that_move_between_rows(api: httpx.Client, created: list[Any]) -> None:
    """Postgres looks at unique values row by row: some exchanges are refused, and none is half done."""
    codes = ["b1", "b2", "b0"]
    before = stored("to_jsonb(shop_voucher)")
    moved = api.patch(URL, json=[{"id": n, "code": code} for n, code in zip(created, codes, strict=True)])
    assert said(moved) == (409, "conflict", [("items[0].code", "not_unique")])
    assert stored("to_jsonb(shop_voucher)") == before


BLOCKED = f"SELECT pid FROM {OWN_SESSIONS} AND wait_event_type = 'Lock' AND query LIKE 'WITH %shop_voucher%'"


def test_rows_are_locked_in_the_order_of_their_keys(api: httpx.Client, created: list[Any]) -> None:
    """So two requests cannot wait for each other. What is locked meanwhile is not lost, nor what is changed."""
    low, _, high = sorted(created)
    for write in (
        lambda: api.patch(URL, json=[{"id": high, "uses": 2}, {"id": low, "uses": 3}]),
        lambda: delete(api, [high, low]),
    ):
        with database().connect() as holder, database().connect() as spy, ThreadPoolExecutor() as threads:
            with holder.transaction():
                holder.execute("UPDATE shop_voucher SET note = 'held' WHERE id = %s", [low])
                answer = threads.submit(write)
                while not spy.execute(BLOCKED).fetchall():
                    assert not answer.done()
                spy.execute("SELECT FROM shop_voucher WHERE id = %s FOR UPDATE NOWAIT", [high])
            assert answer.result().is_success
        if answer.result().content:
            assert [(row["uses"], row["note"]) for row in answer.result().json()] == [(2, ""), (3, "held")]
    assert stored() == [1, created[1]]


def test_a_row_that_goes_meanwhile(api: httpx.Client, created: list[Any]) -> None:
    with database().connect() as holder, database().connect() as spy, ThreadPoolExecutor() as threads:
        with holder.transaction():
            holder.execute("DELETE FROM shop_voucher WHERE id = %s", [created[1]])
            answer = threads.submit(api.patch, URL, json=[{"id": each, "uses": 4} for each in created])
            while not spy.execute(BLOCKED).fetchall():
                assert not answer.done()
        assert said(answer.result()) == (422, "invalid_parameter", [("items[1].id", "no_such_row")])
    assert stored("uses")[1:] == [0, 0]


@pytest.fixture
def watchful(django_db_setup: None, tmp_path: Path) -> Iterator[Service]:
    """A service whose sessions look for deadlocks before their lock_timeout of 500 ms."""
    setting = f'ALTER DATABASE "{database().name}" {{}} deadlock_timeout'
    with database().connect() as connection:
        connection.execute(setting.format("SET") + " = '400ms'")
        try:
            with serve({"DATABASE_URL": database().url}, tmp_path) as service:
                yield service
        finally:
            connection.execute(setting.format("RESET"))


def test_a_deadlock_is_tried_again(watchful: Service) -> None:
    """Of two that hand out the same unique values, in two orders, one is ended by Postgres."""
    insert = (
        "INSERT INTO shop_voucher (code, percent, kind, note, uses, category_id, created)"
        " SELECT %s, 99 - length(%s), 'sale', '', 0, min(id), now() FROM shop_category"
    )
    with database().connect() as holder, database().connect() as spy, ThreadPoolExecutor() as threads:
        holder.execute("SET deadlock_timeout = '10s'")  # the other one is ended
        with holder.transaction(force_rollback=True):
            holder.execute(insert, ["b1", ""])
            answer = threads.submit(watchful.client.post, URL, json=vouchers({}, {}))
            while not spy.execute(BLOCKED).fetchall():
                assert not answer.done()
            holder.execute(insert, ["b0", "x"])  # until the service's statement is ended
        assert answer.result().status_code == 201, answer.result().text
    assert stored("code")[1:] == ["b0", "b1"]


def test_a_line_of_audit_without_content(api: httpx.Client, service: Service) -> None:
    logged = service.log.stat().st_size
    ids = api.post(URL, json=vouchers(*[{"note": "confidential"}] * 150), headers=MINIMAL).json()
    delete(api, ids[:2])
    delete(api, ids[:2])
    lines = [json.loads(line) for line in service.log.read_bytes()[logged:].splitlines()]
    audited = [line for line in lines if line["logger"] == "api.audit"]
    keys = [*map(str, ids)]
    assert [(line["method"], line["route"], line["ids"], line.get("rows")) for line in audited] == [
        ("POST", "/api/vouchers/bulk", keys[:100], 150),
        ("DELETE", "/api/vouchers/bulk", keys[:2], None),
    ]
    assert "confidential" not in str(lines)


def test_in_a_transaction_of_the_endpoints_own(django_db_setup: None) -> None:
    """The item at fault is found there, too, and the transaction goes on."""

    def posted(*changes: dict[str, Any], start: int = 0) -> HttpRequest:
        items = vouchers(*changes, start=start)
        return RequestFactory().post(URL, json.dumps(items), content_type="application/json")

    async def write() -> list[Fault]:
        async with open_pool(), transaction():
            await VOUCHER_BULK.create(posted({}))
            with pytest.raises(Problem) as caught:
                await VOUCHER_BULK.create(posted({}, {}, {"code": "b1"}, start=1))
            await VOUCHER_BULK.create(posted({}, start=5))
        return caught.value.errors or []

    faults = asyncio.run(write())
    assert [(fault.parameter, fault.code) for fault in faults] == [("items[2].code", "not_unique")]
    assert stored("code")[1:] == ["b0", "b5"]


@pytest.mark.django_db
def test_in_the_transaction_of_a_test(client: Client) -> None:
    def post(*changes: dict[str, Any]) -> Any:
        return client.post(URL, json.dumps(vouchers(*changes)), content_type="application/json")

    created = post({}, {})
    assert created.status_code == 201, created.content
    ids = [row["id"] for row in created.json()]
    refused = post({"code": "free", "percent": 7}, {"code": "b0", "percent": 8})
    assert [fault["parameter"] for fault in refused.json()["errors"]] == ["items[1].code"]
    unknown = post({"code": "free", "category": "no"})
    assert [fault["parameter"] for fault in unknown.json()["errors"]] == ["items[0].category"]
    change = json.dumps([{"id": ids[1], "uses": 6}])
    assert client.patch(URL, change, content_type="application/json").json()[0]["uses"] == 6
    assert client.delete(URL, json.dumps(ids[:1]), content_type="application/json").status_code == 204
    assert [*Voucher.objects.filter(pk__in=ids).values_list("uses", flat=True)] == [6]
