"""The requests to the contenders, and the right answers, from Postgres: SCENARIOS in the lab.py of a resource."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
from psycopg.rows import dict_row

from ops.tools.lab.contender import Contender
from ops.tools.lab.failure import LabError

ROOT = Path(__file__).parents[3]
CHECKED = 100  # requests of a scenario that writes: their answers are compared with Postgres
Row = dict[str, Any]
Connection = psycopg.Connection[Row]


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Paths to ask for in turn, and the right answers to the first of them, as rows.

    With `follow`, there is one path. The load then asks for the `next` of its answer, a page found by a cursor.
    """

    paths: list[str]
    answers: list[list[Row]]
    about: str = ""  # distinguishes the questions of one scenario
    follow: bool = False


class Request(NamedTuple):
    path: str
    method: str = "GET"
    body: str = ""  # JSON
    closes: bool = False  # the server closes the connection after the answer; only wrk sends it so

    def wire(self, host: str, headers: str) -> bytes:
        """Return the request as it is sent. `headers` are lines with their ends; a GET does not get them."""
        head = f"{self.method} {self.path} HTTP/1.1\r\nHost: {host}\r\n"
        if self.method != "GET":
            head += headers
        if self.closes:
            head += "Connection: close\r\n"
        if self.body:
            head += f"Content-Type: application/json\r\nContent-Length: {len(self.body.encode())}\r\n"
        return f"{head}\r\n{self.body}".encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Writing:
    """Requests that write, and the rows that are made for them. The rows that the table had before stay as they are.

    `make` makes rows for a number of requests, and returns requests in the order to send them. It may return fewer:
    the load repeats them, unless a request can be made only `once`, as a DELETE. The first CHECKED requests are for
    checks, and no other request uses their rows. `clear` deletes all rows that were made, also by the requests.
    `settle` prepares the table for a round. `read` returns a row by its key, as Postgres holds it.
    """

    make: Callable[[Connection, int], list[Request]]
    clear: Callable[[Connection], object]
    settle: Callable[[Connection], object]
    read: Callable[[Connection, int], Row | None]
    refused: tuple[Request, ...]  # faulty requests, which every contender has to refuse
    scope: str  # the scope that an API key needs
    once: bool = False
    reads: Callable[[Connection], list[Request]] | None = (
        None  # makes the reads beside the writes of an open loop
    )
    stale: str = ""  # the integer field by which stale.py finds stale reads; "" for no such check


@dataclass(frozen=True, slots=True, kw_only=True)
class Disturbance:
    """`clients` that each ask for `path` again and again, and read `pace` bytes a second, or at full speed if 0.

    {silent} in the server's `environment` stands for the address of a listener that never answers.
    """

    name: str
    path: str = ""
    clients: int = 0
    pace: int = 0
    headers: str = ""  # lines of each request, with their ends
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    summary: str
    table: str  # its number of rows is among the conditions of a run
    questions: Callable[[Connection], list[Question]]
    contenders: tuple[Contender, ...]
    writing: Writing | None = None
    connections: int = 32  # of a closed loop
    ways: str = ""  # the name of a module that times ways to write many rows, for bulk.py
    # For exports.py: ways to export many rows, each with a name, a contender and a path; and psql's COPY.
    exports: tuple[tuple[str, Contender, str], ...] = ()
    copy: str = ""
    disturbances: tuple[Disturbance, ...] = ()  # for disturbed.py: other work of a worker beside its reads


def connect(url: str, *, write: bool = False) -> Connection:
    """Return a connection that can only read, unless it is to `write`. Raises LabError if Postgres refuses it."""
    mode = "off" if write else "on"
    try:
        return psycopg.connect(
            url,
            autocommit=True,
            row_factory=dict_row,
            options=f"-c TimeZone=UTC -c default_transaction_read_only={mode}",
        )
    except psycopg.OperationalError as error:
        raise LabError(f"DATABASE_URL: {str(error).strip()}") from None


def find() -> dict[str, Scenario]:
    """Return the scenarios of all resources by name. Raises LabError if there are none."""
    found: dict[str, Scenario] = {}
    for file in sorted(ROOT.glob("*/lab.py")):
        found |= import_module(f"{file.parent.name}.lab").SCENARIOS
    if not found:
        raise LabError("There is nothing to measure: no resource has a lab.py with SCENARIOS (docs/lab.md)")
    return found
