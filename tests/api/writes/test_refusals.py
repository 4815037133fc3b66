"""Bad content and broken rules: one code each, the field by its name, and nothing half written."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from django.conf import settings

from api.writes.violations import Violation, faults_of
from tests.extra import OWN_SESSIONS
from tests.service import Service
from tests.spare import Database
from tests.wiretap import Wiretap

Create = Callable[..., httpx.Response]
GOOD: dict[str, Any] = {"code": "good", "percent": 5, "category": "garden"}
MIB = 1024 * 1024


def said(response: httpx.Response) -> tuple[int, str, list[tuple[str, str]]]:
    problem = response.json()
    faults = [(fault["parameter"], fault["code"]) for fault in problem.get("errors") or ()]
    return response.status_code, problem["code"], faults


BY_EDGE: list[tuple[bytes | dict[str, Any], list[tuple[str, str]]]] = [
    ({}, [("code", "missing"), ("percent", "missing"), ("category", "missing")]),
    ({"nothing": 1, "id": 7, "created": None}, [("nothing", "unknown"), ("id", "unknown"), ("created", "unknown")]),
    (json.dumps({f"m{at:03}": 1 for at in range(1000)}).encode(), [(f"m{at:03}", "unknown") for at in range(10)]),
    ({"code": "a b"}, [("code", "invalid")]),
    ({"code": ""}, [("code", "empty")]),
    ({"code": "x" * 21}, [("code", "too_long")]),
    ({"code": 7}, [("code", "malformed")]),
    ({"code": None}, [("code", "null")]),
    ({"percent": "5"}, [("percent", "malformed")]),
    ({"percent": True}, [("percent", "malformed")]),
    ({"percent": 1.5}, [("percent", "malformed")]),
    ({"percent": -1}, [("percent", "out_of_range")]),
    ({"percent": 2**15}, [("percent", "out_of_range")]),
    ({"uses": 10**4000}, [("uses", "out_of_range")]),
    ({"uses": -(2**31) - 1}, [("uses", "out_of_range")]),
    ({"partner_id": 2**63}, [("partner_id", "out_of_range")]),
    ({"kind": "rent"}, [("kind", "not_a_choice")]),
    ({"starts": "2030-02-30"}, [("starts", "malformed")]),
    ({"note": "a\0b"}, [("note", "encoding")]),
    ({"details": {"a": ["\0"]}}, [("details", "encoding")]),
    ({"details": []}, [("details", "malformed")]),
    (b'{"note":"\\ud800"}', [("note", "encoding")]),
    (b'{"details":{"\\udfff":1}}', [("details", "encoding")]),
    (b'{"\\ud800":1}', [("\ufffd", "encoding")]),
    (b'{"percent":1,"note":"a","percent":2}', [("percent", "repeated")]),
    (b'{"details":{"deep":1,"deep":1}}', [("deep", "repeated")]),
    (b'{"details":{"a":' + b"[" * 64 + b"]" * 64 + b"}}", [("details", "too_deep")]),
    (b'{"details":{"a":' + b"[" * 200_000 + b"]" * 200_000 + b"}}", [("", "too_deep")]),
    ({"category": "no-such"}, [("category", "no_such_row")]),
]  # fmt: skip


@pytest.mark.parametrize(("content", "faults"), BY_EDGE, ids=lambda value: str(value)[:40])
def test_fields(
    api: httpx.Client, wiretap: Wiretap, content: bytes | dict[str, Any], faults: list[tuple[str, str]]
) -> None:
    wiretap.clear()
    if isinstance(content, dict):
        response = api.post("/api/vouchers", json=content and GOOD | content)
    else:
        response = api.post("/api/vouchers", content=content, headers={"content-type": "application/json"})
    assert said(response) == (422, "invalid_parameter", faults)
    assert response.headers["cache-control"] == "no-store"
    assert wiretap.executions == (("category", "no_such_row") in faults)


def test_what_postgres_alone_can_tell_comes_last(api: httpx.Client) -> None:
    """One rule after the other, once all fields are sound."""
    wrong = GOOD | {"category": "no-such", "starts": "2030-02-01", "ends": "2030-01-01"}
    for change, faults in (
        ({"code": "a b"}, [("code", "invalid")]),
        ({}, [("category", "no_such_row")]),
        ({"category": "garden"}, [("starts", "backwards"), ("ends", "backwards")]),
    ):
        one = wrong | change
        assert said(api.post("/api/vouchers", json=one)) == (422, "invalid_parameter", faults)
        named = [(f"items[0].{name}", code) for name, code in faults]
        assert said(api.post("/api/vouchers/bulk", json=[one])) == (422, "invalid_parameter", named)


def test_a_constraint_without_a_code_of_its_own() -> None:
    faults = faults_of("constraint", Violation("", "shop_product", "shop_price_order"))
    assert [(fault.parameter, fault.code, fault.detail) for fault in faults] == [
        ("low_price", "constraint", "breaks a rule of this resource"),
        ("high_price", "constraint", "breaks a rule of this resource"),
    ]


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"\xff", b'{"a":NaN}', b"{'a':1}", b'{"a":1}x', b"\xef\xbb\xbf{}", b'{"a":"\n"}'],
    ids=repr,
)  # fmt: skip
def test_no_json_object(api: httpx.Client, content: bytes) -> None:
    response = api.post("/api/vouchers", content=content, headers={"content-type": "application/json"})
    assert said(response) == (400, "malformed_json", [])


@pytest.mark.parametrize(
    ("method", "headers", "field", "value"),
    [
        ("POST", {}, "accept", "application/json"),
        ("POST", {"content-type": "text/plain"}, "accept", "application/json"),
        ("POST", {"content-type": "application/merge-patch+json"}, "accept", "application/json"),
        ("PUT", {"content-type": "application/json; charset=latin-1"}, "accept", "application/json"),
        ("PATCH", {"content-type": "application/json-patch+json"}, "accept-patch", "application/merge-patch+json, "),
        ("PUT", {"content-type": "application/json", "content-encoding": "gzip"}, "accept-encoding", "identity"),
        ("POST", {"content-type": "application/json;x*=bogus''a"}, "accept", "application/json"),
        ("POST", {"content-type": "application/json;charset*=bogus''utf-8"}, "accept", "application/json"),
        ("POST", {"content-type": "application/json;x*=idna''%41"}, "accept", "application/json"),
    ],
)  # fmt: skip
def test_types_of_content(
    api: httpx.Client, method: str, headers: dict[str, str], field: str, value: str
) -> None:
    response = api.request(
        method, "/api/vouchers" + "/1" * (method != "POST"), content=b"{}", headers=headers
    )
    assert said(response) == (415, "unsupported_media_type", [])
    assert response.headers[field].startswith(value)


def test_a_malformed_type_of_no_content(api: httpx.Client) -> None:
    headers = {"content-type": "a/b;x*=bogus''a"}
    assert api.get("/api/vouchers", headers=headers).status_code == 200
    assert api.post("/nowhere", headers=headers).status_code == 404


def test_too_large_and_other_parameters(api: httpx.Client) -> None:
    large = api.post("/api/vouchers", json=GOOD | {"note": "x" * MIB})
    assert said(large) == (413, "content_too_large", [])
    assert said(api.post("/api/vouchers?x=1", json=GOOD)) == (422, "invalid_parameter", [("x", "unknown")])
    charset = {"content-type": "Application/JSON; charset=UTF-8"}
    created = api.post("/api/vouchers", content=b'{"code":"a","percent":1,"category":"art"}', headers=charset)
    assert created.status_code == 201


def test_a_key_of_its_own(api: httpx.Client, create: Create) -> None:
    url = create().headers["location"]
    assert said(api.patch(url, json={"id": 1})) == (422, "invalid_parameter", [("id", "read_only")])
    assert api.patch(url, json={"id": int(url.rpartition("/")[2])}).status_code == 200


def test_rules_of_the_database(api: httpx.Client, create: Create, service: Service) -> None:
    """Each constraint names its fields by the model's Meta, and the row stays as it was."""
    logged = service.log.stat().st_size
    first = create(code="first", percent=1, kind="gift", starts="2030-01-01", ends="2030-02-01").json()
    second = create(code="second", percent=2)
    url, before = second.headers["location"], second.content
    broken: list[tuple[dict[str, Any], tuple[int, str, list[tuple[str, str]]]]] = [
        ({"code": "first"}, (409, "conflict", [("code", "not_unique")])),
        ({"percent": 1}, (409, "conflict", [("percent", "not_unique"), ("category", "not_unique")])),
        (
            {"starts": "2030-02-01", "ends": "2030-01-01"},
            (422, "invalid_parameter", [("starts", "backwards"), ("ends", "backwards")]),
        ),
        (
            {"kind": "gift", "starts": "2030-01-31", "ends": "2030-03-01"},
            (409, "conflict", [("starts", "excluded"), ("ends", "excluded")]),
        ),
        ({"partner_id": 2**62}, (422, "invalid_parameter", [("partner_id", "no_such_row")])),
        ({"category": "no-such"}, (422, "invalid_parameter", [("category", "no_such_row")])),
    ]
    whole = {name: value for name, value in second.json().items() if name != "created"}
    for change, expected in broken:
        assert said(api.patch(url, json=change)) == expected, change
        assert said(api.put(url, json=whole | change)) == expected, change
        post = {"code": "third", "percent": 3, "category": "garden"} | change
        assert said(api.post("/api/vouchers", json=post)) == expected, change
    assert said(api.patch(url, json={"details": {"a": 1}}))[2] == [("details", "unsupported_merge")]
    assert api.get(url).content == before
    rows = api.get("/api/vouchers").json()["results"]
    assert [row["id"] for row in rows] == [1, first["id"], second.json()["id"]]  # 1 is seeded

    garden = next(c for c in api.get("/api/categories").json()["results"] if c["slug"] == "garden")
    category = f"/api/categories/{garden['id']}"
    assert said(api.delete(category)) == (409, "still_referenced", [])
    assert said(api.patch(category, json={"slug": "art"})) == (409, "conflict", [("slug", "not_unique")])
    assert b"Traceback" not in service.log.read_bytes()[logged:]


@pytest.mark.lean
def test_a_database_that_is_lost_under_a_write(api: httpx.Client, create: Create) -> None:
    """Both sides of the connection end; the client hears that it has to look."""
    url = create().headers["location"]
    blocked = (
        f"SELECT pid FROM {OWN_SESSIONS} AND wait_event_type = 'Lock' AND query LIKE 'WITH %shop_voucher%'"
    )
    database = Database(str(settings.DATABASES["default"]["NAME"]))
    with database.connect() as holder, database.connect() as admin, ThreadPoolExecutor() as threads:
        with holder.transaction():
            holder.execute("SELECT FROM shop_voucher WHERE id = %s FOR UPDATE", [url.rpartition("/")[2]])
            answer = threads.submit(api.patch, url, json={"uses": 5})
            while not answer.done():
                for (pid,) in admin.execute(blocked).fetchall():
                    admin.execute("SELECT pg_terminate_backend(%s)", [pid])
        assert said(answer.result()) == (503, "write_outcome_unknown", [])
    assert api.get(url).json()["uses"] == 0


def test_the_orms_errors_are_the_same(api: httpx.Client, create: Create) -> None:
    create(code="taken")
    url = create().headers["location"].replace("vouchers", "orm-vouchers")
    assert api.post(url, params={"uses": 1, "code": "free"}).status_code == 204
    taken = api.post(url, params={"uses": 1, "code": "taken"})
    assert said(taken) == (409, "conflict", [("code", "not_unique")])
    assert said(api.post(url, params={"uses": 2**40, "code": "x"}))[:2] == (422, "invalid_parameter")
    assert said(api.post(url, params={"uses": 1, "code": "x" * 30})) == (
        422,
        "invalid_parameter",
        [("", "too_long")],
    )
