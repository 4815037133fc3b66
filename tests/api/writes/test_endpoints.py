"""POST, PATCH, PUT and DELETE of a resource: their answers, their cost, their preconditions."""

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.service import Service
from tests.wiretap import Wiretap

Create = Callable[..., httpx.Response]
MERGE = {"content-type": "application/merge-patch+json"}


def code_of(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["code"]


def test_a_voucher_through_its_life(api: httpx.Client, create: Create) -> None:
    created = create(code="spring", details={"a": [1.5, None, "é"]}, starts="2030-01-01", ends="2030-02-01")
    url = created.headers["location"]
    assert url == f"/api/vouchers/{created.json()['id']}"
    assert (created.json()["kind"], created.json()["note"], created.json()["uses"]) == ("sale", "", 0)
    got = api.get(url)
    assert (got.content, got.headers["etag"]) == (created.content, created.headers["etag"])

    patched = api.patch(url, content=b'{"uses":3,"details":null}', headers=MERGE)
    assert patched.json() == created.json() | {"uses": 3, "details": None}
    assert patched.content == api.get(url).content
    assert patched.headers["etag"] not in (created.headers["etag"], "")
    assert api.patch(url, json={}).content == patched.content

    replaced = api.put(url, json=(whole := patched.json() | {"partner_id": None, "note": "new"}) | {})
    assert code_of(replaced) == (422, "invalid_parameter")  # `created` is not the client's to write
    del whole["created"]
    replaced = api.put(url, json=whole)
    assert replaced.json() == patched.json() | {"note": "new"}
    assert replaced.content == api.get(url).content
    del whole["note"]
    assert [fault["code"] for fault in api.put(url, json=whole).json()["errors"]] == ["missing"]

    deleted = api.delete(url)
    assert (deleted.status_code, deleted.content) == (204, b"")
    for gone in (api.get(url), api.delete(url), api.patch(url, json={"uses": 1})):
        assert code_of(gone) == (404, "not_found")
    assert code_of(api.put(url, json=whole | {"note": ""})) == (404, "not_found")


@pytest.mark.lean
def test_one_statement_in_one_round_trip(api: httpx.Client, create: Create, wiretap: Wiretap) -> None:
    urls = [create().headers["location"] for _ in range(2)]
    tag = create().headers["etag"]
    writes: list[Callable[[str], httpx.Response]] = [
        lambda _: create(),
        lambda url: api.patch(url, json={"uses": 1}),
        lambda url: api.patch(url, json={"note": "n", "uses": 2}, headers={"if-match": f'{tag}, "x", *'}),
        lambda url: api.put(url, json=writable(api.get(url).json())),
        api.delete,
    ]
    for write in writes:
        write(urls[0])  # is prepared
        wiretap.clear()
        write(urls[1])
        sent = [message.kind for message in wiretap.messages]
        if write is writes[3]:
            assert sent[:4] == ["B", "D", "E", "S"]  # the GET's
            sent = sent[4:]
        assert sent == ["B", "D", "E", "S"]


@pytest.mark.lean
def test_a_transaction_is_a_round_trip_a_statement_and_two(api: httpx.Client, wiretap: Wiretap) -> None:
    api.post("/api/shelves/shelf-b?codes=shelf-4")
    wiretap.clear()
    assert api.post("/api/shelves/shelf-c?codes=shelf-5,shelf-6").status_code == 204
    assert "".join(message.kind for message in wiretap.messages) == "BDES" * 5


def writable(voucher: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in voucher.items() if name != "created"}


def test_if_match(api: httpx.Client, create: Create) -> None:
    created = create()
    url, old = created.headers["location"], created.headers["etag"]
    new = api.patch(url, json={"uses": 1}, headers={"If-Match": old}).headers["etag"]
    for stale in (old, f"W/{new}", '"x"', "x", new.strip('"'), '""'):
        headers = {"If-Match": stale}
        assert code_of(api.patch(url, json={"uses": 9}, headers=headers)) == (412, "precondition_failed")
        assert code_of(api.put(url, json=writable(api.get(url).json()), headers=headers))[0] == 412
        assert code_of(api.delete(url, headers=headers)) == (412, "precondition_failed")
    assert api.get(url).json()["uses"] == 1
    same = api.patch(url, json={"uses": 1}, headers={"If-Match": f'"x", {new[:-1]}-zstd"'})
    assert (same.status_code, same.headers["etag"]) == (200, new)
    assert api.patch(url, json={"uses": 2}, headers={"If-Match": "*"}).status_code == 200
    assert code_of(api.patch("/api/vouchers/99999", json={"uses": 2}, headers={"If-Match": "*"}))[0] == 404
    for method in ("PUT", "PATCH", "DELETE"):
        refused = api.request(method, url, json={"uses": 2}, headers={"If-None-Match": "*"})
        assert refused.status_code in ({422} if method == "PUT" else {400}), method
    for name in ("If-Match", "If-None-Match"):
        refused = api.post("/api/vouchers", json={}, headers={name: '"x"'})
        assert code_of(refused) == (400, "unsupported_precondition")
    whole = writable(api.get(url).json())
    assert code_of(api.put(url, json=whole, headers={"If-None-Match": "*"})) == (
        400,
        "unsupported_precondition",
    )


def test_a_strict_resource(api: httpx.Client, create: Create) -> None:
    created = create()
    url = f"/api/strict-vouchers/{created.json()['id']}"
    assert code_of(api.patch(url, json={"uses": 1})) == (428, "precondition_required")
    changed = api.patch(url, json={"uses": 1}, headers={"If-Match": created.headers["etag"]})
    assert changed.json()["uses"] == 1
    assert [f["parameter"] for f in api.patch(url, json={"note": "x"}).json()["errors"]] == ["note"]


def test_a_line_of_audit_without_content(api: httpx.Client, create: Create, service: Service) -> None:
    logged = service.log.stat().st_size
    created = create(note="confidential")
    api.delete(created.headers["location"])
    api.delete(created.headers["location"])
    lines = [json.loads(line) for line in service.log.read_bytes()[logged:].splitlines()]
    audited = [line for line in lines if line["logger"] == "api.audit"]
    assert [(line["method"], line["route"], line["ids"]) for line in audited] == [
        ("POST", "/api/vouchers", [str(created.json()["id"])]),
        ("DELETE", "/api/vouchers/{voucher_id}", [str(created.json()["id"])]),
    ]
    assert audited[0]["request_id"] == created.headers["x-request-id"]
    assert "confidential" not in str(lines)
