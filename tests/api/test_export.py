"""An export: the list's own rows in each format, whole or visibly cut, whatever client, Postgres or server do."""

import asyncio
import csv
import gzip
import io
import json
import signal
import socket
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import psycopg
import pytest
import zstandard
from asgiref.sync import async_to_sync
from django.conf import settings
from django.db import connection, models
from django.test import Client, RequestFactory
from ninja import Schema
from pytest_django import Settings

from api import AccessPath, Export, Listing, Problem
from api.reads import export
from api.reads.export import ExportQuery, Stream
from ops.asgi.admission import admission
from tests.api.writes.test_import import memory_of, wait_for
from tests.api.writes.test_refusals import said
from tests.conftest import ROWS
from tests.extra import OWN_SESSIONS
from tests.ops.postgres.models import Spelled
from tests.service import PATIENCE, Service, serve
from tests.shop.models import Category, Voucher
from tests.shop.schemas import CategoryOut
from tests.spare import Database

PRODUCTS, VOUCHERS = "/api/products/export", "/api/vouchers/export"
EXPORTING = f"SELECT pid FROM {OWN_SESSIONS} AND query LIKE 'COPY (SELECT%' AND state = 'active'"
LARGE = 100  # vouchers with a note of 200 kB: more than all buffers between Postgres and a client hold

NASTY = [
    'a "b", \\n \\\\ \\',
    "line\nfeed\r\nand\rreturn\ttab",
    "\x01\x02\x1f\x7f\u2028é😀\ufeff",
    ',;\'""',
    "\\.",
    "",
    " ",
    "null",
    "%s %% $1 {}",
]
FORMULAS = [
    "=1+1",
    "+1",
    "-1",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "\n=1",
    "\uff1d1",
    "\uff0b1",
    "\uff0d1",
    "\uff201",
]
HARMLESS = ["a=1", " =1", "1", "'=1"]


@pytest.fixture(scope="module")
def service(django_db_setup: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service whose way to Postgres nothing listens in on: a statement is cancelled by another connection."""
    database = Database(str(settings.DATABASES["default"]["NAME"]))
    own = {"DATABASE_URL": database.url, "EXPORT_CONCURRENCY": "2"}
    with serve(own, tmp_path_factory.mktemp("service")) as running:
        running.client.get("/livez")
        yield running


@pytest.fixture
def database(django_db_setup: None) -> Iterator["psycopg.Connection[Any]"]:
    with Database(str(settings.DATABASES["default"]["NAME"])).connect() as connection:
        yield connection
        connection.execute("DELETE FROM shop_voucher WHERE code LIKE 'export-%'")


INSERT = """
    INSERT INTO shop_voucher (code, percent, kind, note, uses, category_id, created, details, starts)
    SELECT 'export-' || n, n, 'sale', note, -n, (SELECT id FROM shop_category WHERE slug = 'toys'), now(),
           %(details)s, %(starts)s
    FROM
"""


def insert_large(database: "psycopg.Connection[Any]", number: int, size: int) -> None:
    """So many vouchers with a note of so many bytes."""
    given = "(SELECT repeat('x', %(size)s) AS note, n FROM generate_series(1, %(number)s) AS n) AS given"
    database.execute(INSERT + given, {"size": size, "number": number, "details": None, "starts": None})


@pytest.fixture
def nasty(database: "psycopg.Connection[Any]") -> None:
    values = {
        "notes": [*NASTY, *FORMULAS, *HARMLESS],
        "details": json.dumps({"a": [1.5, None, 'é\\\n"=,'], "": {}}),
        "starts": "0099-01-02",
    }
    database.execute(f"{INSERT} unnest(%(notes)s::text[]) WITH ORDINALITY AS given(note, n)", values)


@pytest.fixture
def large(database: "psycopg.Connection[Any]") -> None:
    insert_large(database, LARGE, 200_000)


def get(api: httpx.Client, url: str, **headers: str) -> httpx.Response:
    answer = api.get(url, headers={"Accept-Encoding": "identity", **headers})
    assert answer.status_code == 200, answer.text
    return answer


def rows_of(api: httpx.Client, url: str) -> list[Any]:
    return [json.loads(line) for line in get(api, url).text.split("\n")[:-1]]


def listed(api: httpx.Client, url: str) -> bytes:
    """The rows of all pages of a list, as the bytes that it answers, a line each."""
    lines, following = b"", url
    while following:
        content = get(api, following).content
        lines += content.partition(b',"results":[')[2].removesuffix(b"]}").replace(b",\n", b"\n") + b"\n"
        following = json.loads(content)["next"]
    return lines


# --- The content ------------------------------------------------------------------------------------


@pytest.mark.usefixtures("nasty")
@pytest.mark.parametrize("query", ["sort=id", "sort=-id", "sort=id&fields=note,id", "sort=id&fields=details"])
def test_ndjson_has_the_bytes_of_the_list(api: httpx.Client, query: str) -> None:
    answer = get(api, f"{VOUCHERS}?{query}")
    assert answer.content == listed(api, f"/api/vouchers?limit=7&{query}")
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert answer.headers["content-disposition"] == 'attachment; filename="tests.vouchers.ndjson"'
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["transfer-encoding"] == "chunked"


@pytest.mark.usefixtures("nasty")
def test_json(api: httpx.Client) -> None:
    answer = get(api, f"{VOUCHERS}?sort=id&format=json")
    lines = get(api, f"{VOUCHERS}?sort=id").content
    assert answer.content == b'{"results":[' + lines.replace(b"\n", b"\n,").removesuffix(b",") + b"]}"
    assert answer.json() == {"results": [json.loads(line) for line in lines.split(b"\n")[:-1]]}
    assert answer.headers["content-type"] == "application/json"


@pytest.mark.usefixtures("nasty")
def test_csv(api: httpx.Client) -> None:
    answer = get(api, f"{VOUCHERS}?sort=id&format=csv")
    assert answer.headers["content-type"] == "text/csv; charset=utf-8; header=present"
    names, *cells = csv.reader(io.StringIO(answer.text, newline=""), strict=True)
    for row, line in zip(rows_of(api, f"{VOUCHERS}?sort=id"), cells, strict=True):
        assert names == [*row]
        for (name, value), cell in zip(row.items(), line, strict=True):
            if name == "details" and value is not None:
                assert json.loads(cell) == value
            else:
                assert cell == ("" if value is None else str(value)), name
    lines = answer.content.split(b"\r\n")
    assert lines[0].decode() == ",".join(names)
    assert lines[-1] == b""
    assert answer.content.count(b"\r\n") == len(cells) + 1 + sum(note.count("\r\n") for note in NASTY)


@pytest.mark.usefixtures("nasty")
def test_postgres_reads_the_csv(api: httpx.Client, database: "psycopg.Connection[Any]") -> None:
    fields = "id,code,percent,kind,note,details,starts,ends,uses,partner_id,created"
    content = get(api, f"{VOUCHERS}?format=csv&fields={fields}").content
    database.execute(f"CREATE TEMP TABLE read AS SELECT {fields} FROM shop_voucher WITH NO DATA")
    with (
        database.cursor() as cursor,
        cursor.copy(f"COPY read ({fields}) FROM STDIN (FORMAT csv, HEADER)") as copy,
    ):
        copy.write(content)
    stored = f"SELECT {fields} FROM shop_voucher"
    for difference in (f"TABLE read EXCEPT {stored}", f"{stored} EXCEPT TABLE read"):
        assert database.execute(difference).fetchall() == []
    [[number]] = database.execute("SELECT count(*) FROM read").fetchall()
    assert number >= len(NASTY)


@pytest.mark.usefixtures("nasty")
def test_a_spreadsheet_sees_no_formula(api: httpx.Client) -> None:
    url = f"{VOUCHERS}?sort=id&format=csv&fields=note,uses,details"
    plain = [*csv.reader(io.StringIO(get(api, url).text, newline=""))]
    answer = get(api, f"{url}&spreadsheet=true")
    assert answer.content.startswith(b"\xef\xbb\xbfnote,")
    safe = [*csv.reader(io.StringIO(answer.text.removeprefix("\ufeff"), newline=""))]
    for (note, *others), (changed, *same) in zip(plain, safe, strict=True):
        assert changed == (f"'{note}" if note in FORMULAS else note)
        assert same == others  # a negative number is one
    assert {*FORMULAS, *HARMLESS} <= {row[0] for row in plain}


def test_no_rows(api: httpx.Client) -> None:
    none = f"{PRODUCTS}?created_after=9999-01-01T00:00:00Z"
    assert get(api, none).content == b""
    assert get(api, f"{none}&end=true").content == b'{"complete":true,"rows":0}\n'
    assert get(api, f"{none}&format=json").json() == {"results": []}
    assert get(api, f"{none}&format=csv&fields=id,category").content == b"id,category\r\n"
    assert gzip.decompress(raw_content(api, none, "gzip")) == b""


def raw_content(api: httpx.Client, url: str, coding: str) -> bytes:
    with api.stream("GET", url, headers={"Accept-Encoding": coding}) as answer:
        assert answer.headers["content-encoding"] == coding
        assert answer.headers["vary"] == "Accept-Encoding"
        return b"".join(answer.iter_raw())


@pytest.mark.parametrize("form", ["ndjson", "json", "csv"])
def test_codings(api: httpx.Client, form: str) -> None:
    url = f"{PRODUCTS}?sort=id&format={form}"
    content = get(api, url).content
    assert gzip.decompress(raw_content(api, url, "gzip")) == content
    coded = raw_content(api, url, "zstd")
    assert zstandard.ZstdDecompressor().decompressobj().decompress(coded) == content
    assert len(coded) < len(content) / 3


# --- Which rows, and in which order ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "query",
    [
        "category=garden&created_after=2020-01-01T00:00:00Z",
        "low_price_min=12.5&low_price_max=100",
        "fields=id,category",
    ],
)
def test_filters_and_fields(api: httpx.Client, query: str) -> None:
    """They are the list's. Without a sort, the order is open."""
    exported = get(api, f"{PRODUCTS}?{query}").content
    assert sorted(exported.splitlines()) == sorted(
        listed(api, f"/api/products?limit=1000&{query}").splitlines()
    )
    assert exported


@pytest.mark.parametrize("sort", ["time_created", "-time_created", "low_price", "-high_price", "id", "-id"])
def test_an_export_that_was_cut_goes_on(api: httpx.Client, sort: str) -> None:
    """Behind the last row that its client has, with the sort key that the row shows."""
    whole = rows_of(api, f"{PRODUCTS}?sort={sort}")
    assert len(whole) == ROWS
    column = sort.removeprefix("-")
    for at in (0, ROWS // 3, ROWS - 2, ROWS - 1):
        row = whole[at]
        key = str(row["id"]) if column == "id" else f"{row[column]},{row['id']}"
        rest = rows_of(api, f"{PRODUCTS}?sort={sort}&after={quote(key)}&limit=50")
        assert rest == whole[at + 1 : at + 51]


def test_limit(api: httpx.Client) -> None:
    first = rows_of(api, f"{PRODUCTS}?sort=time_created&limit=5")
    assert rows_of(api, f"{PRODUCTS}?limit=5") == first  # the list's own order
    assert rows_of(api, f"{PRODUCTS}?limit=3&end=true") == [*first[:3], {"complete": True, "rows": 3}]
    assert len(rows_of(api, f"{PRODUCTS}?limit={2**63 - 1}")) == ROWS


@pytest.mark.parametrize(
    ("query", "code", "parameter"),
    [
        ("colour=red", "unknown", "colour"),
        ("layout=columns", "unknown", "layout"),
        ("cursor=x", "unknown", "cursor"),
        ("limit=0", "out_of_range", "limit"),
        (f"limit={2**63}", "out_of_range", "limit"),
        ("limit=1&limit=1", "repeated", "limit"),
        ("sort=sold_qty", "not_a_choice", "sort"),
        ("fields=id,secret", "not_a_choice", "fields"),
        ("format=xml", "not_a_choice", "format"),
        ("created_after=yesterday", "malformed", "created_after"),
        ("end=1", "malformed", "end"),
        ("format=", "empty", "format"),
        ("sort=id&after=x", "invalid_cursor", "after"),
        ("sort=id&after=1,1", "invalid_cursor", "after"),
        (f"sort=id&after={2**63}", "invalid_cursor", "after"),
        ("after=1", "invalid_cursor", "after"),
        ("sort=low_price&after=1.234,7", "invalid_cursor", "after"),
        ("format=csv&end=true", "unsupported_combination", "end"),
        ("spreadsheet=true", "unsupported_combination", "spreadsheet"),
    ],
)
def test_refusals(api: httpx.Client, query: str, code: str, parameter: str) -> None:
    answer = api.get(f"{PRODUCTS}?{query}")
    assert answer.status_code == 422
    assert [(fault["parameter"], fault["code"]) for fault in answer.json()["errors"]] == [(parameter, code)]


def test_a_combination_without_an_index(api: httpx.Client) -> None:
    for path in ("/api/products", PRODUCTS):
        answer = api.get(f"{path}?sort=id&low_price_min=1")
        assert (answer.status_code, answer.json()["code"]) == (422, "unsupported_combination")


@pytest.mark.django_db
@pytest.mark.usefixtures("django_db_setup")
def test_an_export_is_in_the_tests_transaction(client: Client) -> None:
    Voucher.objects.create(code="export-mine", percent=7, category_id=1, note=NASTY[0])
    for form in ("ndjson", "csv", "json"):
        answer = client.get(f"{VOUCHERS}?format={form}")
        assert b"export-mine" in answer.content
    assert client.get(f"{VOUCHERS}?limit=1&end=true").content.endswith(b'{"complete":true,"rows":1}\n')


@pytest.mark.django_db
@pytest.mark.usefixtures("django_db_setup")
def test_an_export_under_djangos_cursor_for_debugging(client: Client, settings: Settings) -> None:
    settings.DEBUG = True
    assert client.get(f"{VOUCHERS}?limit=1").status_code == 200
    assert len(connection.queries) > 0


class Shelfmark(Spelled):
    mark = models.CharField(max_length=9, primary_key=True)
    author = models.CharField(max_length=9)
    year = models.IntegerField()
    title = models.CharField(max_length=9, unique=True)

    class Meta:
        app_label = "spelled"


class ShelfmarkOut(Schema):
    mark: str
    author: str
    year: int
    title: str


@pytest.mark.django_db
@pytest.mark.usefixtures("django_db_setup")
@pytest.mark.parametrize("sort", ["author", "year", "title"])
def test_keys_with_commas_and_quotes(monkeypatch: pytest.MonkeyPatch, sort: str) -> None:
    """One text is taken as it is; two are quoted as in CSV."""
    monkeypatch.setattr("api.reads.listing.LISTINGS", [])
    with connection.schema_editor(atomic=False) as editor:
        editor.create_model(Shelfmark)
    texts = ["a", "a,b", 'a"b', '"a","b"', "b,a,b", ",", "a\nb", "a\u2028b", "a\x0bb"]
    for at, author in enumerate(texts[:4]):
        for mark in texts:
            Shelfmark.objects.create(mark=f"{at}{mark}", author=author, year=at, title=f"{mark}{at}")
    whole = Export(Listing("shelfmarks", Shelfmark.objects.all(), ShelfmarkOut, AccessPath(sort)))

    def rows(query: str) -> list[dict[str, Any]]:
        answer = async_to_sync(whole.respond)(RequestFactory().get(f"/?sort={sort}&{query}"))
        return [json.loads(line) for line in answer.content.splitlines()]

    expected = rows("")
    for at, row in enumerate(expected):
        after = row["title"] if sort == "title" else f"{row[sort]},{row['mark']}"
        if sort == "author":
            csv.writer(key := io.StringIO()).writerow([row["author"], row["mark"]])
            after = key.getvalue().removesuffix("\r\n")
        assert rows(f"after={quote(after)}") == expected[at + 1 :], row
    if sort == "author":
        with pytest.raises(Problem, match="as a line of CSV"):
            rows("after=x,a%0Ab")


@pytest.mark.django_db
@pytest.mark.usefixtures("django_db_setup")
def test_rows_that_are_distinct(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each once, as in the list, also where the fields that are shown are the same; and nothing beside the fields."""
    monkeypatch.setattr("api.reads.listing.LISTINGS", [])
    shelves = [Category.objects.create(slug=f"shelf-{at}", name="Shelf") for at in range(3)]
    for at in range(6):
        Voucher.objects.create(code=f"export-{at}", percent=at, category=shelves[at // 3])
    rows = Category.objects.filter(name="Shelf", vouchers__code__startswith="export-").distinct()
    whole = Export(Listing("shelves", rows, CategoryOut, AccessPath("id")))

    def content(query: str) -> str:
        answer = async_to_sync(whole.respond)(RequestFactory().get(f"/?{query}"))
        return str(answer.content.decode())

    first, second, _ = (each.pk for each in shelves)
    lines = [f'{{"id":{first},"slug":"shelf-0"}}\n', f'{{"id":{second},"slug":"shelf-1"}}\n']
    for query in ("", "sort=id&", "limit=2&", "limit=9&sort=id&"):
        assert content(f"{query}fields=id,slug") == "".join(lines)
        assert content(f"{query}fields=name") == '{"name":"Shelf"}\n' * 2
    assert content("sort=-id&limit=1&fields=id,slug") == lines[1]
    assert content(f"sort=id&after={first}&fields=id,slug") == lines[1]
    assert content("sort=id&format=csv&fields=slug,name") == "slug,name\r\nshelf-0,Shelf\r\nshelf-1,Shelf\r\n"
    assert [row["id"] for row in json.loads(content("sort=id&format=json"))["results"]] == [first, second]


# --- Streams ------------------------------------------------------------------------------------------


class Reader:
    """A client that reads as much as it is told to."""

    def __init__(
        self, service: Service, target: str = VOUCHERS, fields: str = "", method: str = "GET"
    ) -> None:
        self.connection = socket.create_connection(service.address, PATIENCE)
        self.connection.sendall(
            f"{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{fields}\r\n".encode()
        )
        self.answer = self.connection.makefile("rb", buffering=0)

    def read(self, size: int) -> bytes:
        content = b""
        while len(content) < size and (piece := self.answer.read(size - len(content))):
            content += piece
        return content

    def rest(self) -> bytes:
        content = b""
        with suppress(ConnectionResetError):
            while piece := self.answer.read(1 << 20):
                content += piece
        return content

    def close(self) -> None:
        self.answer.close()
        self.connection.close()


@contextmanager
def reading(service: Service, target: str = VOUCHERS, fields: str = "") -> Iterator[Reader]:
    """A client that has got the beginning of an export."""
    reader = Reader(service, target, fields)
    try:
        assert reader.read(17) == b"HTTP/1.1 200 OK\r\n"
        yield reader
    finally:
        reader.close()


def wait_for_places(service: Service) -> None:
    """Until as many exports as may can run: the worker has closed the connections of those before."""
    give_up = time.monotonic() + PATIENCE
    while True:
        answers = [Reader(service, f"{PRODUCTS}?limit=1") for _ in range(2)]
        heads = [answer.read(12) for answer in answers]
        for answer in answers:
            answer.close()
        if heads == [b"HTTP/1.1 200"] * 2:
            return
        assert time.monotonic() < give_up


@pytest.mark.usefixtures("large")
def test_a_client_that_leaves(service: Service, database: "psycopg.Connection[Any]") -> None:
    for fields in ("", "Accept-Encoding: gzip\r\n"):
        with reading(service, VOUCHERS, fields):
            wait_for(database, EXPORTING, 1)
        left = time.monotonic()
        wait_for(database, EXPORTING, 0)
        assert time.monotonic() - left < 2
    wait_for_places(service)
    assert b"Traceback" not in service.log.read_bytes()


def test_a_client_that_leaves_before_the_first_row(
    service: Service, database: "psycopg.Connection[Any]"
) -> None:
    """Postgres computes, and has nothing to send that would tell it."""
    with Database(database.info.dbname).connect() as holder, holder.transaction():
        holder.execute("LOCK TABLE shop_voucher IN ACCESS EXCLUSIVE MODE")
        waiting = EXPORTING.replace("state = 'active'", "wait_event_type = 'Lock'")
        reader = Reader(service)
        wait_for(database, waiting, 1)
        reader.close()
        wait_for(database, waiting, 0)
    wait_for_places(service)


@pytest.mark.usefixtures("large")
def test_as_many_at_a_time_as_may(service: Service, database: "psycopg.Connection[Any]") -> None:
    with reading(service) as first, reading(service) as second:
        wait_for(database, EXPORTING, 2)
        refused = service.client.get(VOUCHERS)
        assert said(refused) == (503, "too_many_exports", [])
        assert int(refused.headers["retry-after"]) > 0
        head = service.client.head(f"{VOUCHERS}?format=csv")  # runs no COPY
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-type"].startswith("text/csv")
        assert "content-length" not in head.headers
        assert service.client.head(f"{VOUCHERS}?limit=0").status_code == 422
        assert len(service.client.get("/api/products").json()["results"]) == 100  # no shared connection
        for reader in (first, second):
            assert reader.rest().endswith(b"\r\n0\r\n\r\n") if reader is first else reader.read(1000)
    wait_for_places(service)


@pytest.mark.usefixtures("large")
def test_a_slow_client(service: Service, database: "psycopg.Connection[Any]") -> None:
    """It reads 100 bytes at a time. Of what it does not read, the worker has little, and Postgres waits."""
    with reading(service) as warm:  # buffers, as any export of such rows has them
        warm.read(1 << 20)
    wait_for_places(service)
    wait_for(database, EXPORTING, 0)
    before = memory_of(service, "VmRSS")
    with reading(service) as reader:
        for _ in range(3):
            reader.read(100)
            time.sleep(0.1)
        wait_for(database, f"{EXPORTING} AND wait_event = 'ClientWrite'", 1)
        assert service.client.get("/api/products/1").status_code == 200
        assert memory_of(service, "VmRSS") - before <= 1
    wait_for_places(service)


@pytest.mark.lean
def test_memory(service: Service, database: "psycopg.Connection[Any]") -> None:
    insert_large(database, 20_000, 1000)
    for target in (f"{VOUCHERS}?limit=1", f"{PRODUCTS}?limit=1"):
        get(service.client, target)
    before = memory_of(service)
    for form in ("ndjson", "csv"):
        with service.client.stream("GET", f"{VOUCHERS}?format={form}") as answer:
            assert sum(map(len, answer.iter_bytes())) > 20_000_000
    assert memory_of(service) - before < 16


@pytest.mark.usefixtures("large")
def test_rows_are_of_one_moment(service: Service, database: "psycopg.Connection[Any]") -> None:
    with reading(service, f"{VOUCHERS}?fields=code,note&end=true") as reader:
        database.execute("UPDATE shop_voucher SET note = 'new' WHERE code LIKE 'export-%'")
        content = reader.rest()
    assert b'"new"' not in content
    assert content.count(b'{"code":"export-') == LARGE
    assert b'{"complete":true,"rows":' in content


@pytest.mark.usefixtures("large")
def test_a_database_that_is_lost(service: Service, database: "psycopg.Connection[Any]") -> None:
    logged = service.log.stat().st_size
    with reading(service, f"{VOUCHERS}?end=true") as reader:
        [pid] = wait_for(database, EXPORTING, 1)
        database.execute("SELECT pg_terminate_backend(%s)", [pid])
        content = reader.rest()
    assert len(content) > 1000
    assert not content.endswith(b"0\r\n\r\n")
    assert b'"complete"' not in content
    wait_for_places(service)
    lines = [json.loads(line) for line in service.log.read_bytes()[logged:].splitlines()]
    assert [line["status"] for line in lines if line["event"] == "request failed"] == [500]


def test_a_database_that_is_not_there(service: Service, database: "psycopg.Connection[Any]") -> None:
    """Before the first row it is an answer as ever."""
    with Database(database.info.dbname).connect() as holder, holder.transaction():
        holder.execute("LOCK TABLE shop_voucher IN ACCESS EXCLUSIVE MODE")
        assert said(service.client.get(VOUCHERS)) == (503, "database_unavailable", [])
    assert service.client.get(VOUCHERS).status_code == 200


@pytest.mark.lean
@pytest.mark.usefixtures("large")
def test_a_server_that_stops(database: "psycopg.Connection[Any]", tmp_path: Path) -> None:
    """An export under way goes on to its end."""
    with serve({"DATABASE_URL": Database(database.info.dbname).url}, tmp_path) as running:
        with reading(running) as reader:
            wait_for(database, EXPORTING, 1)
            running.process.send_signal(signal.SIGTERM)
            assert reader.rest().endswith(b"\r\n0\r\n\r\n")
        assert running.process.wait(PATIENCE) == 0
    wait_for(database, EXPORTING, 0)


@pytest.mark.parametrize("takes", [True, False])
def test_patience_with_a_client(settings: Settings, takes: bool) -> None:  # noqa: FBT001
    """One that takes nothing for too long is left; where the protocol has no deadline, nothing else would end it."""
    settings.STREAM_PATIENCE_SECONDS = 0.05
    ended = []

    async def pieces() -> AsyncGenerator[bytes, None]:
        try:
            for _ in range(3):
                await asyncio.sleep(0.1)  # for which its client is not to blame
                yield b"x"
        finally:
            ended.append(True)

    async def send() -> int:
        sent = 0
        stream = Stream(b"x", pieces())
        async with aclosing(aiter(stream)) as content:
            async for piece in content:
                sent += len(piece)
                await asyncio.sleep(0 if takes else PATIENCE)
        return sent

    if takes:
        assert asyncio.run(send()) == 4
        assert ended
    else:
        with pytest.raises(asyncio.CancelledError):
            asyncio.run(send())


def test_it_gives_way_to_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a piece while which a request has come, and after no other."""

    async def batches(*_: object) -> AsyncGenerator[list[bytes]]:
        for number in range(4):
            yield [b"%d\n" % number]

    async def pieces() -> list[tuple[bytes, int]]:
        pauses: list[float] = []

        async def sleep(seconds: float) -> None:
            pauses.append(seconds)

        monkeypatch.setattr(asyncio, "sleep", sleep)
        monkeypatch.setattr("ops.postgres.copy_out.copy_out", batches)
        found = []
        async with aclosing(
            export._pieces(ExportQuery("them", "", [], "ndjson", b"", has_end=False))
        ) as them:
            async for piece in them:
                found.append((piece, len(pauses)))
                if piece == b"1\n":
                    admission.begun += 1
        return found

    assert asyncio.run(pieces()) == [(b"0\n", 0), (b"1\n", 0), (b"2\n", 1), (b"3\n", 1)]
