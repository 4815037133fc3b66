"""What counts as a write that was done: the answer, Postgres and what was sent agree, and faults are refused."""

import json
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from urllib.parse import urlsplit

import pytest

from ops.tools.lab.failure import LabError
from ops.tools.lab.scenarios import Connection, Request, Row, Writing, connect
from ops.tools.lab.servers import Server
from ops.tools.lab.verify import verified_writes
from ops.tools.lab.writer import Writer
from tests import spare
from tests.ops.tools.lab.listener import server

STATUS = {"POST": 201, "PUT": 200, "GET": 200, "DELETE": 204}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with spare.create(f"test_lab_writes_{os.getpid()}") as database:
        with database.connect() as connection:
            connection.execute("CREATE TABLE thing (id int GENERATED ALWAYS AS IDENTITY, price numeric(5,2))")
        yield database.url


def make(database: Connection, count: int) -> list[Request]:
    rows = database.execute(
        "INSERT INTO thing (price) SELECT 1 FROM generate_series(1, %s) RETURNING id", (count,)
    )
    return [Request(f"/things/{row['id']}", "DELETE") for row in rows.fetchall()]


def read(database: Connection, key: int) -> Row | None:
    return database.execute("SELECT id, price::text FROM thing WHERE id = %s", (key,)).fetchone()


WRITING = Writing(
    make=make,
    clear=lambda database: database.execute("DELETE FROM thing"),
    settle=lambda database: database.execute("VACUUM thing"),
    read=read,
    refused=(Request("/things", "POST", '{"price":"cheap"}'),),
    scope="things:write",
    once=True,
)


@contextmanager
def writer_of(url: str) -> Iterator[Writer]:
    with closing(connect(url)) as reader:
        yield Writer(url, reader, WRITING, "secret")


def check(url: str, *requests: Request, fault: str = "") -> None:
    """Verify `requests` to a server on that database that has this fault."""

    def answer(text: bytes) -> bytes:
        head, _, body = text.partition(b"\r\n\r\n")
        method, path = head.decode().split()[:2]
        status, row = STATUS[method], None
        price = json.loads(body)["price"] if body else None
        if b"X-API-Key: secret" not in head and method != "GET" and fault != "open":
            status = 403
        elif price == "cheap":
            status = {"lenient": 201, "breaks": 500}.get(fault, 422)
        elif fault == "other status":
            status = 202
        else:
            stored = "9.99" if fault == "another value" else price
            with closing(connect(url, write=True)) as database:
                row = write(database, method, path, stored, forgets=fault == "forgets")
        content = json.dumps(row).encode() if row else b""
        return b"HTTP/1.1 %d x\r\ncontent-length: %d\r\n\r\n%b" % (status, len(content), content)

    with server(answer) as http, writer_of(url) as writer:
        verified_writes(Server(urlsplit(http).port or 0, 0), "it", writer, [*requests])


def write(database: Connection, method: str, path: str, price: str | None, *, forgets: bool) -> Row | None:
    """What a right server does, unless it forgets it."""
    key = int(path.rpartition("/")[2]) if method != "POST" else 0
    if method == "POST":
        statement = "INSERT INTO thing (price) VALUES (%s) RETURNING id, price::text"
        row = database.execute(statement, (price,)).fetchall()[0]
        if forgets:
            database.execute("DELETE FROM thing WHERE id = %s", (row["id"],))
        return row
    if method == "DELETE" and not forgets:
        database.execute("DELETE FROM thing WHERE id = %s", (key,))
    if method == "PUT" and not forgets:
        database.execute("UPDATE thing SET price = %s WHERE id = %s", (price, key))
    return None if method == "DELETE" else read(database, key)


@pytest.mark.parametrize(
    ("fault", "complaint"),
    [
        ("", ""),
        ("other status", "answers POST /things wrongly: status 202"),
        ("forgets", "answers POST /things wrongly: Postgres has no such row"),
        ("another value", "answers POST /things wrongly: row 1: price is '1.50', Postgres has '9.99'"),
        ("lenient", r"it answers POST /things .*cheap.* with status 201"),
        ("breaks", r"it answers POST /things .*cheap.* with status 500"),
        ("open", "it answers POST with a wrong API key with status 201"),
    ],
)
def test_a_new_row(url: str, fault: str, complaint: str) -> None:
    judge(url, fault, complaint, Request("/things", "POST", '{"price":"1.50"}'))


@pytest.mark.parametrize(
    ("fault", "complaint"),
    [
        ("", ""),
        ("forgets", "wrongly: row 1: price is '1.50', Postgres has '1.00'"),
        ("another value", "wrongly: row 1: price is '1.50', Postgres has '9.99'"),
    ],
)
def test_a_changed_row(url: str, fault: str, complaint: str) -> None:
    with writer_of(url) as writer, writer.rows(1) as requests:
        path = requests[0].path
        put = Request(path, "PUT", '{"price":"1.50"}')
        judge(url, fault, complaint, put, Request(path))


@pytest.mark.parametrize(
    ("fault", "complaint"), [("", ""), ("forgets", "answers DELETE .* wrongly: the row is still there")]
)
def test_a_deleted_row(url: str, fault: str, complaint: str) -> None:
    with writer_of(url) as writer, writer.rows(1) as requests:
        judge(url, fault, complaint, *requests[:3])


def judge(url: str, fault: str, complaint: str, *requests: Request) -> None:
    if complaint:
        with pytest.raises(LabError, match=complaint):
            check(url, *requests, fault=fault)
    else:
        check(url, *requests)


def test_rows_are_gone_whatever_happens(url: str) -> None:
    counted = "SELECT count(*) AS rows FROM thing"
    with writer_of(url) as writer:
        with suppress(ZeroDivisionError), writer.rows(5) as requests:
            assert len(requests) == 105
            assert writer.reader.execute(counted).fetchone() == {"rows": 105}
            raise ZeroDivisionError
        assert writer.reader.execute(counted).fetchone() == {"rows": 0}
