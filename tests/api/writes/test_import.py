"""A stream of rows: all of them, or none and the lines at fault; whatever the client, Postgres or the server does."""

import asyncio
import json
import secrets
import signal
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from django.conf import settings
from django.test import Client

from api import Import
from api.problems import Fault
from ops.postgres.lines import MAX_LINE_BYTES
from ops.postgres.load import WrongLine
from tests.api.writes.test_refusals import BY_EDGE, GOOD, said
from tests.extra import OWN_SESSIONS
from tests.service import PATIENCE, Service, serve
from tests.shop.models import Voucher
from tests.spare import Database

URL = "/api/vouchers/import"
NDJSON, CSV = {"Content-Type": "application/x-ndjson"}, {"Content-Type": "text/csv"}
NAMES = [*("code", "percent", "kind", "note", "details", "starts", "ends", "uses", "category", "partner_id")]
_numbers = count(1000)

Faults = list[tuple[str, str]]


@pytest.fixture(scope="module")
def service(django_db_setup: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service whose way to Postgres nothing listens in on: a statement is cancelled by another connection."""
    database = Database(str(settings.DATABASES["default"]["NAME"]))
    own = {"PAGE_CACHE": "on", "CACHE_PREFIX": f"test-{secrets.token_hex(6)}", "DATABASE_URL": database.url}
    with serve(own, tmp_path_factory.mktemp("service")) as running:
        running.client.get("/livez")
        yield running


@pytest.fixture
def database(django_db_setup: None) -> Iterator["psycopg.Connection[Any]"]:
    with Database(str(settings.DATABASES["default"]["NAME"])).connect() as connection:
        yield connection


def vouchers(number: int, **values: Any) -> list[dict[str, Any]]:
    """So many rows that are unlike all others."""
    return [
        {"code": f"i{at}", "percent": at % 30_000, "category": "garden"} | values
        for at in (next(_numbers) for _ in range(number))
    ]


def lines_of(rows: list[Any]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def table_of(rows: list[dict[str, Any]]) -> bytes:
    """The same as CSV: all but null in quotes, and what is no text as JSON."""
    names = [*dict.fromkeys(name for row in rows for name in row)]

    def cell(value: Any) -> str:
        text = value if isinstance(value, str) else json.dumps(value)
        return "" if value is None else '"{}"'.format(text.replace('"', '""'))

    return "".join(
        f"{','.join(line)}\r\n" for line in (names, *(map(cell, row.values()) for row in rows))
    ).encode()


def send(api: httpx.Client, content: Any, headers: dict[str, str] | None = None) -> httpx.Response:
    return api.post(URL, content=content, headers=headers or NDJSON)


def counted(database: "psycopg.Connection[Any]", condition: str = "true") -> int:
    [[number]] = database.execute(f"SELECT count(*) FROM shop_voucher WHERE {condition}").fetchall()
    return int(number)


@pytest.mark.parametrize("is_csv", [False, True])
def test_rows(api: httpx.Client, database: "psycopg.Connection[Any]", is_csv: bool) -> None:  # noqa: FBT001
    rows = vouchers(3)
    rows[1] |= {
        "kind": "gift",
        "note": 'a "b", \\n \x02é😀\nc',
        "details": {"a": [1.5, None, "é\\"]},
        "uses": -7,
        "starts": "2030-01-01",
        "ends": None,
        "partner_id": 1,
    }
    content = table_of([dict.fromkeys(NAMES) | row for row in rows]) if is_csv else lines_of(rows)
    answer = send(api, content, CSV if is_csv else NDJSON)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    report = answer.json()
    assert {name: report[name] for name in ("read", "inserted")} == {"read": 3, "inserted": 3}
    assert 0 < report["seconds"] < PATIENCE
    found = api.get("/api/vouchers").json()["results"][-3:]
    empty = {
        "kind": "sale",
        "note": "",
        "details": None,
        "starts": None,
        "ends": None,
        "uses": 0,
        "partner_id": None,
    }
    for row, voucher in zip(rows, found, strict=True):
        assert voucher["created"]
        assert voucher == {"id": voucher["id"], "created": voucher["created"]} | empty | row
    assert counted(database, "created > now() - interval '1 minute'") >= 3


def test_no_rows(api: httpx.Client) -> None:
    for content, headers in (
        (b"", NDJSON),
        (b"code,percent,category\n", CSV),
        (b"code,percent,category", CSV),
    ):
        answer = send(api, content, headers)
        assert {**answer.json(), "seconds": 0} == {"read": 0, "inserted": 0, "seconds": 0}, answer.text


def test_forms_of_lines(api: httpx.Client, database: "psycopg.Connection[Any]") -> None:
    """Ends of lines of other systems, the mark of spreadsheets, a last line without end, numbers as floats."""
    rows = vouchers(8)
    first, last = (lines_of([row]) for row in rows[:2])
    assert send(api, first.replace(b"\n", b"\r\n") + b" " + last[:-1]).json()["inserted"] == 2
    table = table_of(rows[2:4])
    assert b"\r\n" in table
    assert send(api, b"\xef\xbb\xbf" + table.removesuffix(b"\r\n"), CSV).json()["inserted"] == 2
    assert send(api, table_of(rows[4:5]).replace(b"\r", b""), CSV).json()["inserted"] == 1
    floats = lines_of([rows[5] | {"uses": 7.0}, rows[6]]).replace(b"7.0", b"70.0e-1")
    assert send(api, floats).json()["inserted"] == 2
    assert counted(database, "uses = 7") == 1
    assert send(api, iter([lines_of(rows[7:])[:5], lines_of(rows[7:])[5:]])).json()["inserted"] == 1


@pytest.mark.parametrize(("form", "headers"), [("ndjson", NDJSON), ("csv", CSV)])
def test_an_export_is_imported(
    api: httpx.Client, database: "psycopg.Connection[Any]", form: str, headers: dict[str, str]
) -> None:
    rows = vouchers(2, note='a "b",\r\n\\ é', details={"a": [1.5, None]}, starts="2030-01-01", partner_id=1)
    assert send(api, lines_of(rows + vouchers(1))).json()["inserted"] == 3
    [[first]] = database.execute(
        "SELECT min(id) FROM shop_voucher WHERE code = %s", [rows[0]["code"]]
    ).fetchall()
    url = f"/api/vouchers/export?format={form}&sort=id&after="
    refused = send(api, api.get(f"{url}{first - 1}").content, headers)
    assert said(refused)[2][:2] == [("lines[1].id", "unknown"), ("lines[1].created", "unknown")]
    assert refused.json()["errors"][0]["detail"].endswith("an export leaves it out by its parameter `fields`")
    url += f"{first - 1}&fields={','.join(NAMES)}"
    exported = api.get(url).content
    database.execute("DELETE FROM shop_voucher WHERE id >= %s", [first])
    assert send(api, exported, headers).json()["inserted"] == 3
    assert api.get(url).content == exported


@pytest.mark.parametrize(("content", "faults"), BY_EDGE, ids=lambda value: str(value)[:40])
def test_a_line_is_refused_as_one_row_is(
    api: httpx.Client, database: "psycopg.Connection[Any]", content: bytes | dict[str, Any], faults: Faults
) -> None:
    """In the middle of good ones, by the same codes, and CSV as JSON as far as it can say the same."""
    before = counted(database)
    one = (json.dumps(content and GOOD | content).encode() if isinstance(content, dict) else content) + b"\n"
    if len(one) > MAX_LINE_BYTES:
        one = one[:20_000] + b"\n"  # the test of lines has those; this is another one that is too deep
    good = lines_of(vouchers(2))
    refused = send(api, good + one + good)
    named = [(f"lines[3].{name}" if name else "lines[3]", code) for name, code in faults]
    assert said(refused) == (422, "invalid_parameter", named), refused.text
    if (
        isinstance(content, dict)
        and content.keys() <= GOOD.keys() | {"uses", "kind", "starts", "partner_id"}
        and content
    ):
        row = GOOD | content
        cells: Faults = [(name.replace("[3]", "[2]"), code) for name, code in named]
        if None in content.values():
            cells = [(name, "missing") for name, _ in cells]
        if content not in ({"code": 7}, {"percent": "5"}):  # which are texts in CSV, too
            assert said(send(api, table_of([row]), CSV)) == (422, "invalid_parameter", cells)
    assert counted(database) == before


def test_texts_that_postgres_would_read_otherwise(api: httpx.Client) -> None:
    for name, text in (
        *(("percent", text) for text in (" 7", "+7", "0x7", "1_0", "1.5", "")),
        *(
            ("starts", text)
            for text in ("today", "2030-1-1", "20300101", "infinity", "2030-01-01 BC", "Jan 1 2030")
        ),
    ):
        row = {"code": "x", "percent": "5", "category": "garden"} | {name: text}
        content = f"{','.join(row)}\n{','.join(row.values())}\n".encode()
        assert said(send(api, content, CSV))[2][0][0] == f"lines[2].{name}", text


def test_spellings_that_one_row_may_have(api: httpx.Client) -> None:
    """The field is named, beside others, and no field that the import takes."""
    table = b"code,percent,category,starts,uses\n" + b"\n".join((
        b"a,5,garden,1893456000,7",
        b"b,005,garden,1893456000,x",
        b"a b,-1,garden,1893456000,007",
        b"d,5,garden,2030-01-01,0x7",
    ))  # fmt: skip
    faults = [
        ("lines[2].starts", "malformed"),
        *(("lines[3].uses", "malformed"), ("lines[3].starts", "malformed")),
        *(
            ("lines[4].code", "invalid"),
            ("lines[4].percent", "out_of_range"),
            ("lines[4].starts", "malformed"),
        ),
        ("lines[5].uses", "malformed"),
    ]
    assert said(refused := send(api, table, CSV)) == (422, "invalid_parameter", faults)
    assert refused.json()["errors"][0]["detail"] == "is in a spelling that an import does not take"
    one = GOOD | {"starts": "1893456000"}
    assert said(send(api, lines_of([one, one | {"uses": "7", "nothing": 1}]))) == (422, "invalid_parameter", [
        *(("lines[1].starts", "malformed"), ("lines[2].uses", "malformed")),
        *(("lines[2].nothing", "unknown"), ("lines[2].starts", "malformed")),
    ])  # fmt: skip


def test_the_first_hundred_faults(api: httpx.Client, database: "psycopg.Connection[Any]") -> None:
    before = counted(database)
    rows = [row | ({"percent": -1, "uses": "x"} if at % 3 else {}) for at, row in enumerate(vouchers(1000))]
    status, code, faults = said(refused := send(api, lines_of(rows)))
    assert (status, code) == (422, "invalid_parameter")
    wrong = [at + 1 for at in range(1000) if at % 3][:50]
    assert faults == [
        (f"lines[{line}].{name}", code)
        for line in wrong
        for name, code in (("percent", "out_of_range"), ("uses", "malformed"))
    ]
    assert refused.json()["detail"].startswith("Nothing was imported. lines[2].percent: ")
    assert counted(database) == before


def test_rules_of_the_database(
    api: httpx.Client, create: Callable[..., httpx.Response], database: "psycopg.Connection[Any]"
) -> None:
    """Constraints, rows that are not there, and rows that exclude each other: in the stream, and with the table's."""
    create(code="first", percent=1, kind="gift", starts="2030-01-01", ends="2030-02-01")
    before = counted(database)
    good = vouchers(20)
    unique = {"code": "twice", "percent": 2, "category": "art"}
    cases: list[tuple[dict[int, dict[str, Any]], tuple[int, str, Faults]]] = [
        ({3: {"starts": "2030-02-01", "ends": "2030-01-01"}, 7: {"percent": -1}, 9: {"category": "no-such"}}, (
            422, "invalid_parameter", [
                *(("lines[4].starts", "backwards"), ("lines[4].ends", "backwards")),
                *(("lines[8].percent", "out_of_range"), ("lines[10].category", "no_such_row")),
            ])),
        ({5: {"partner_id": 2**62}}, (422, "invalid_parameter", [("lines[6].partner_id", "no_such_row")])),
        ({2: {"code": "first"}, 4: {"code": "twice"}, 11: {"code": "twice"}, 12: {"code": "twice"}}, (
            409, "conflict", [(f"lines[{line}].code", "not_unique") for line in (3, 12, 13)])),
        ({2: {"percent": 1}, 3: unique, 4: unique | {"code": "other"}}, (
            409, "conflict", [
                (f"lines[{line}].{name}", "not_unique") for line in (3, 5) for name in ("percent", "category")
            ])),
        ({13: {"kind": "gift", "starts": "2030-01-31", "ends": "2030-03-01"}}, (
            409, "conflict", [("lines[14].starts", "excluded"), ("lines[14].ends", "excluded")])),
        ({1: {"kind": "gift", "starts": "2031-01-01"}, 17: {"kind": "gift", "starts": "2031-01-01", "note": "x"}}, (
            409, "conflict", [("lines[18].starts", "excluded"), ("lines[18].ends", "excluded")])),
    ]  # fmt: skip
    for changes, expected in cases:
        rows = [row | changes.get(at, {}) for at, row in enumerate(good)]
        assert said(send(api, lines_of(rows))) == expected, changes
        status, code, faults = expected
        names = [*dict.fromkeys(name for row in rows for name in row)]
        table = table_of([dict.fromkeys(names) | row for row in rows])
        lines = [
            (name.replace(line := name[6 : name.index("]")], str(int(line) + 1), 1), c) for name, c in faults
        ]
        assert said(send(api, table, CSV)) == (status, code, lines), changes
    assert counted(database) == before
    assert send(api, lines_of(good)).json()["inserted"] == 20


READ_NO_FURTHER: list[tuple[bytes, dict[str, str], Faults]] = [
    (b"\xff\n", NDJSON, [("lines[2]", "encoding")]),
    (b"\0\n", NDJSON, [("lines[2]", "encoding")]),
    (b"\x01\n", NDJSON, [("lines[2]", "malformed")]),
    (b"{\r}\n", NDJSON, [("lines[2]", "malformed")]),
    (b"\\.\n", NDJSON, [("lines[2]", "malformed")]),
    (b"\\N\n", NDJSON, [("lines[2]", "malformed")]),
    (b"\n", NDJSON, [("lines[2]", "malformed")]),
    (b"[]\n1\n", NDJSON, [("lines[2]", "malformed"), ("lines[3]", "malformed")]),
    (b" " * MAX_LINE_BYTES + b"{}\n", NDJSON, [("lines[2]", "too_long")]),
    (b"", CSV, [("lines[1]", "malformed")]),
    (b"code,percent,code,x,x", CSV, [
        *(("lines[1].x", "unknown"), ("lines[1].x", "unknown")),
        *(("lines[1].code", "repeated"), ("lines[1].category", "missing")),
    ]),
    (b"code,percent,category\na,1,garden\na,1\n", CSV, [("lines[3]", "malformed")]),
    (b"code,percent,category\na,1,garden,x\n", CSV, [("lines[2]", "malformed")]),
    (b'code,percent,category\na,1,"garden\n', CSV, [("lines[2]", "malformed")]),
    (b"code,percent,category\na,1,garden\n\\.\nb,2,garden\n", CSV, [("lines[3]", "malformed")]),
    (b"code,percent,category\na,1,\xff\n", CSV, [("lines[2]", "encoding")]),
    (b"c" * MAX_LINE_BYTES + b"code\n", CSV, [("lines[1]", "too_long")]),
    (b"\xff\n", CSV, [("lines[1]", "encoding")]),
]  # fmt: skip


@pytest.mark.parametrize(("content", "headers", "faults"), READ_NO_FURTHER, ids=lambda value: str(value)[:30])
def test_streams_that_are_none(
    api: httpx.Client,
    database: "psycopg.Connection[Any]",
    content: bytes,
    headers: dict[str, str],
    faults: Faults,
) -> None:
    before = counted(database)
    good = lines_of(vouchers(1)) if headers is NDJSON else b""
    assert said(send(api, good + content, headers)) == (422, "invalid_parameter", faults)
    assert counted(database) == before


FAULTS_BEFORE: list[tuple[bytes, dict[str, str], Faults]] = [
    (b"a,1,garden\na b,x,garden\nc,5,no-such\nd,5\ne,x,garden\n", CSV, [
        *(("lines[3].code", "invalid"), ("lines[3].percent", "malformed")),
        *(("lines[4].category", "no_such_row"), ("lines[5]", "malformed")),
    ]),
    (b"a,x,garden\n" + b"b,1,garden\n" * 20_000 + b"c\n", CSV, [
        *(("lines[2].percent", "malformed"), ("lines[20003]", "malformed")),
    ]),
    (b'a,x,"gar\nden"\nb,2,"garden\nc,3,garden\nd,4,garden\n', CSV, [
        *(("lines[2].percent", "malformed"), ("lines[2].category", "no_such_row"), ("lines[3]", "malformed")),
    ]),
    (b"a,x,garden\nb,2,\xff\n", CSV, [("lines[2].percent", "malformed"), ("lines[3]", "encoding")]),
    (b"a,x,garden\nb,2," + b"x" * MAX_LINE_BYTES, CSV, [
        *(("lines[2].percent", "malformed"), ("lines[3]", "too_long")),
    ]),
    (b"[]\n\xff\n[]\n", NDJSON, [("lines[1]", "malformed"), ("lines[2]", "encoding")]),
    (b"[]\n[]\n" + b"x" * MAX_LINE_BYTES + b"x\n", NDJSON, [
        *(("lines[1]", "malformed"), ("lines[2]", "malformed"), ("lines[3]", "too_long")),
    ]),
]  # fmt: skip


@pytest.mark.parametrize(("content", "headers", "faults"), FAULTS_BEFORE, ids=lambda value: str(value)[:30])
def test_faults_before_the_line_that_ends_the_reading(
    api: httpx.Client, content: bytes, headers: dict[str, str], faults: Faults
) -> None:
    names = b"" if headers is NDJSON else b"code,percent,category\n"
    assert said(send(api, names + content, headers)) == (422, "invalid_parameter", faults)


def test_types_of_content(api: httpx.Client) -> None:
    for kind in ("application/json", "text/plain", "text/csv; charset=latin-1", ""):
        refused = send(api, b"x", {"Content-Type": kind})
        assert said(refused) == (415, "unsupported_media_type", [])
        assert refused.headers["accept"] == "application/x-ndjson, application/jsonl, text/csv"
    gzipped = send(api, b"x", {**NDJSON, "Content-Encoding": "gzip"})
    assert (gzipped.status_code, gzipped.headers["accept-encoding"]) == (415, "identity")
    assert send(api, b"", {"Content-Type": "Application/JSONL; charset=UTF-8"}).status_code == 200
    assert said(api.post(f"{URL}?x=1", content=b"", headers=NDJSON))[2] == [("x", "unknown")]
    assert api.get(URL).status_code == 405


def test_a_line_of_audit(api: httpx.Client, service: Service) -> None:
    logged = service.log.stat().st_size
    answer = send(api, lines_of(vouchers(3, note="confidential")))
    refused = send(api, lines_of(vouchers(1, note="confidential", percent=-1)))
    assert refused.status_code == 422
    lines = [json.loads(line) for line in service.log.read_bytes()[logged:].splitlines()]
    [audited] = [line for line in lines if line["logger"] == "api.audit"]
    assert (audited["method"], audited["route"], audited["rows"]) == ("POST", "/api/vouchers/import", 3)
    assert audited["request_id"] == answer.headers["x-request-id"]
    assert "confidential" not in str(lines)


class Slow:
    """An import that is under way: its head and some of its lines are sent."""

    def __init__(self, service: Service, content: bytes, headers: dict[str, str] = NDJSON) -> None:
        self.connection = socket.create_connection(service.address, PATIENCE)
        fields = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        head = f"POST {URL} HTTP/1.1\r\nHost: localhost\r\n{fields}Transfer-Encoding: chunked\r\n\r\n"
        self.connection.sendall(head.encode())
        self.send(content)

    def send(self, content: bytes) -> None:
        self.connection.sendall(b"%x\r\n%b\r\n" % (len(content), content))

    def end(self) -> tuple[int, dict[str, Any]]:
        self.connection.sendall(b"0\r\n\r\n")
        return self.answer()

    def answer(self) -> tuple[int, dict[str, Any]]:
        with self.connection, self.connection.makefile("rb") as answer:
            status = int(answer.readline().split()[1])
            fields = dict(
                line.decode().lower().strip().split(": ") for line in iter(answer.readline, b"\r\n")
            )
            return status, json.loads(answer.read(int(fields["content-length"])))


COPYING = f"SELECT pid FROM {OWN_SESSIONS} AND query LIKE 'COPY \"import lines\"%' AND state = 'active'"
IMPORTING = f"SELECT pid FROM {OWN_SESSIONS} AND query LIKE '%import rows%' AND wait_event_type = 'Lock'"


def wait_for(database: "psycopg.Connection[Any]", query: str, number: int) -> list[int]:
    """The backends that it finds, once there are so many."""
    give_up = time.monotonic() + PATIENCE
    while len(found := database.execute(query).fetchall()) != number:
        assert time.monotonic() < give_up, query
    return [pid for (pid,) in found]


def wait_for_a_place(service: Service) -> None:
    """Until the worker has closed the connection of an import that came to nothing."""
    give_up = time.monotonic() + PATIENCE
    while (answer := send(service.client, b"")).status_code == 503:
        assert time.monotonic() < give_up, answer.text
    assert answer.status_code == 200


def test_a_stream_that_is_cut(service: Service, database: "psycopg.Connection[Any]") -> None:
    before = counted(database)
    for _ in range(3):
        slow = Slow(service, lines_of(vouchers(100)))
        wait_for(database, COPYING, 1)
        slow.connection.close()
        wait_for(database, COPYING, 0)
        wait_for_a_place(service)
    assert counted(database) == before
    assert send(service.client, lines_of(vouchers(1))).json()["inserted"] == 1
    assert b"Traceback" not in service.log.read_bytes()


def test_a_client_that_leaves_before_the_answer(
    service: Service, database: "psycopg.Connection[Any]"
) -> None:
    """Its rows wait for a lock as it leaves: none of them comes."""
    before = counted(database)
    with Database(database.info.dbname).connect() as holder, holder.transaction():
        holder.execute("LOCK TABLE shop_voucher IN EXCLUSIVE MODE")
        slow = Slow(service, lines_of(vouchers(100)))
        slow.connection.sendall(b"0\r\n\r\n")
        wait_for(database, IMPORTING, 1)
        slow.connection.close()
        wait_for(database, IMPORTING, 0)  # while the table is still locked
        wait_for_a_place(service)
    assert counted(database) == before


def test_as_many_at_a_time_as_may(service: Service, database: "psycopg.Connection[Any]") -> None:
    slow = Slow(service, lines_of(vouchers(2)))
    wait_for(database, COPYING, 1)
    refused = send(service.client, lines_of(vouchers(1)))
    assert said(refused) == (503, "too_many_imports", [])
    assert int(refused.headers["retry-after"]) > 0
    slow.send(lines_of(vouchers(1)))
    status, report = slow.end()
    assert (status, report["inserted"]) == (200, 3)
    assert send(service.client, lines_of(vouchers(1))).status_code == 200


def test_a_database_that_is_lost(service: Service, database: "psycopg.Connection[Any]") -> None:
    """While the client sends, when the answer is sent at once, and while its rows are inserted."""
    before = counted(database)
    slow = Slow(service, lines_of(vouchers(2)))
    [pid] = wait_for(database, COPYING, 1)
    database.execute("SELECT pg_terminate_backend(%s)", [pid])
    wait_for(database, f"SELECT 1 FROM pg_stat_activity WHERE pid = {pid}", 0)
    with suppress(OSError):
        for _ in range(10):  # the first piece may still be taken by the socket of a server that is gone
            slow.send(lines_of(vouchers(1)))
            time.sleep(0.05)
    status, problem = slow.answer()
    assert (status, problem["code"]) == (503, "database_unavailable")

    with (
        Database(database.info.dbname).connect() as holder,
        ThreadPoolExecutor() as threads,
        holder.transaction(),
    ):
        holder.execute("LOCK TABLE shop_voucher IN EXCLUSIVE MODE")
        answer = threads.submit(send, service.client, lines_of(vouchers(2)))
        [pid] = wait_for(database, IMPORTING, 1)
        database.execute("SELECT pg_terminate_backend(%s)", [pid])
        assert said(answer.result()) == (503, "database_unavailable", [])
    assert counted(database) == before
    assert send(service.client, lines_of(vouchers(1))).status_code == 200


@pytest.fixture(scope="module")
def small(django_db_setup: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that takes little."""
    database = Database(str(settings.DATABASES["default"]["NAME"]))
    own = {"DATABASE_URL": database.url, "IMPORT_LIMIT": "100000"}
    with serve(own, tmp_path_factory.mktemp("small")) as running:
        yield running


def test_too_much(small: Service, database: "psycopg.Connection[Any]") -> None:
    """By its length, and in the middle of chunks."""
    before = counted(database)
    rows = lines_of(vouchers(3000))
    assert said(send(small.client, rows)) == (413, "content_too_large", [])
    slow = Slow(small, rows[:90_000])
    wait_for(database, COPYING, 1)
    slow.send(rows[90_000:110_000])
    status, problem = slow.answer()
    assert (status, problem["code"]) == (413, "content_too_large")
    assert counted(database) == before
    assert said(send(small.client, iter([b"{}\n" * 20_000] * 2))) == (413, "content_too_large", [])


def test_the_next_read_has_the_rows(api: httpx.Client) -> None:
    for number in range(1, 4):
        give_up = time.monotonic() + PATIENCE
        while "hit" not in (cached := api.get("/api/vouchers")).headers["cache-status"]:
            assert time.monotonic() < give_up  # a worker that has just subscribed trusts none of its entries
        seen = len(cached.json()["results"])
        assert send(api, lines_of(vouchers(number))).status_code == 200
        assert len(api.get("/api/vouchers").json()["results"]) == seen + number


@pytest.mark.lean
def test_a_server_that_stops(
    database: "psycopg.Connection[Any]", tmp_path: Path, django_db_setup: None
) -> None:
    """In the middle of a stream whose client is silent: nothing of it is left, and the server stops in order."""
    wait_for(database, COPYING, 0)  # a test before this one may have left its server with one
    before = counted(database)
    with serve({"DATABASE_URL": Database(database.info.dbname).url}, tmp_path) as running:
        slow = Slow(running, lines_of(vouchers(10)))
        wait_for(database, COPYING, 1)
        running.wait_for(b"RUNTIME=")  # it is this server's worker, which has started
        running.process.send_signal(signal.SIGTERM)
        with suppress(ConnectionResetError):  # the answer, and the end of the process right behind it
            status, problem = slow.answer()
            assert (status, problem["code"]) == (408, "request_timeout")
        assert running.process.wait(PATIENCE) == 0, running.log.read_text()[-3000:]
    wait_for(database, COPYING, 0)
    assert counted(database) == before
    assert b"Traceback" not in running.log.read_bytes()


def memory_of(service: Service, name: str = "VmHWM") -> int:
    """The most that a worker has had, or what it has now (VmRSS), in MiB."""
    [worker] = (
        Path(f"/proc/{service.process.pid}/task/{service.process.pid}/children").read_text().split()[:1]
    )
    status = Path(f"/proc/{worker}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith(name)).split()[1]) // 1024


@pytest.mark.lean
def test_memory(service: Service, database: "psycopg.Connection[Any]") -> None:
    """Of a stream of 40 MB, with good lines and with bad ones, the worker has never more than some."""
    send(service.client, lines_of(vouchers(1)))
    before = memory_of(service)
    note = "x" * 40_000
    for fault in ({}, {"uses": "x"}):
        rows = vouchers(1000, note=note, **fault)
        answer = send(service.client, (lines_of([row]) for row in rows))
        assert answer.status_code == (422 if fault else 200)
    assert memory_of(service) - before < 32


@pytest.mark.django_db
def test_others_have_their_turn_between_lines_at_fault(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And no line is read again once as many faults are known as are named."""
    explain, turns = Import._explain, list[Any]()

    def noted(self: Import, wrong: WrongLine) -> Iterator[Fault]:
        turns.append(wrong.line)
        asyncio.get_running_loop().call_soon(turns.append, "others")
        return explain(self, wrong)

    monkeypatch.setattr(Import, "_explain", noted)
    rows = [{f"m{at}": 1 for at in range(20)}] * 100
    refused = client.post(URL, lines_of(rows), content_type="application/x-ndjson")
    assert len(refused.json()["errors"]) == 100
    assert turns == [turn for line in range(1, 11) for turn in (line, "others")]


@pytest.mark.django_db
def test_an_import_is_in_the_tests_transaction(client: Client, database: "psycopg.Connection[Any]") -> None:
    rows, before = vouchers(2), counted(database)
    for content, kind in ((lines_of(rows), "application/x-ndjson"), (table_of(vouchers(2)), "text/csv")):
        answer = client.post(URL, content, content_type=kind)
        assert answer.json()["inserted"] == 2, answer.content
    refused = client.post(URL, lines_of(rows), content_type="application/x-ndjson")
    assert (refused.status_code, refused.json()["code"]) == (409, "conflict")
    assert Voucher.objects.filter(code__in=[row["code"] for row in rows]).count() == 2
    assert counted(database) == before
