"""The requests to the contenders, and the right answers, from Postgres: a resource's lab.py has SCENARIOS."""

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
CHECKED = 100  # requests of a scenario that writes, whose answers are compared
Row = dict[str, Any]
Connection = psycopg.Connection[Row]


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Paths to ask for in turn, and the rows that the first of them answer.

    With `follow`, the path is where the first answer's `next` leads: a page found by a cursor.
    """

    paths: list[str]
    answers: list[list[Row]]
    about: str = ""  # tells a scenario's questions apart
    follow: bool = False


class Request(NamedTuple):
    path: str
    method: str = "GET"
    body: str = ""  # JSON
    closes: bool = False  # the connection ends with its answer; by wrk alone

    def wire(self, host: str, headers: str) -> bytes:
        """The request as it is sent; `headers` are lines of those that write, each with its end."""
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
    """Requests that write, and the rows that are made for them. The table's own stay as they are.

    `make` makes the rows for so many requests, and returns requests, in their order: if they are fewer, each is asked
    for again and again, unless it can be made only `once`, as a DELETE. The first CHECKED are for checks, and have
    rows that no other has. `clear` deletes all that was made, also by the requests; `settle` leaves the table as a
    round is to find it. `read` is a row as Postgres holds it, by its key.
    """

    make: Callable[[Connection, int], list[Request]]
    clear: Callable[[Connection], object]
    settle: Callable[[Connection], object]
    read: Callable[[Connection, int], Row | None]
    refused: tuple[Request, ...]  # faulty ones, which every contender has to refuse
    scope: str  # that the service asks of an API key
    once: bool = False
    reads: Callable[[Connection], list[Request]] | None = None  # the other class of an open loop's requests
    stale: str = ""  # a field to look for stale reads by: PUT it, then GET the row at once


@dataclass(frozen=True, slots=True, kw_only=True)
class Disturbance:
    """`clients` that each ask for `path` again and again, and read `pace` bytes a second, or as fast as they can.

    {silent} in the server's `environment` is the address of a listener that never answers.
    """

    name: str
    path: str = ""
    clients: int = 0
    pace: int = 0
    headers: str = ""  # lines, each with its end
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    summary: str
    table: str  # a run's figures hold for its rows
    questions: Callable[[Connection], list[Question]]
    contenders: tuple[Contender, ...]
    writing: Writing | None = None
    connections: int = 32  # of a closed loop
    ways: str = ""  # a module that times ways to write many rows: bulk.py
    # Ways to export many rows, each with a contender and a path, and psql's COPY: exports.py
    exports: tuple[tuple[str, Contender, str], ...] = ()
    copy: str = ""
    disturbances: tuple[Disturbance, ...] = ()  # what one worker does beside its reads: disturbed.py


def connect(url: str, *, write: bool = False) -> Connection:
    """A connection that only reads, unless it is to `write`. Raises LabError."""
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
    """The scenarios of all resources by name; raises LabError if there are none."""
    found: dict[str, Scenario] = {}
    for file in sorted(ROOT.glob("*/lab.py")):
        found |= import_module(f"{file.parent.name}.lab").SCENARIOS
    if not found:
        raise LabError("There is nothing to measure: no resource has a lab.py with SCENARIOS (docs/lab.md)")
    return found
