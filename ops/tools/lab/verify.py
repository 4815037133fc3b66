"""Check that a contender answers the rows of Postgres, and writes as it is asked to.

A contender that does less has less work: its figures are not valid.
"""

import datetime
import json
from collections.abc import Mapping
from contextlib import suppress
from http import HTTPStatus
from http.client import HTTPException
from typing import Any

from ops.tools.lab.failure import LabError
from ops.tools.lab.scenarios import Question, Request, Row
from ops.tools.lab.servers import Server
from ops.tools.lab.writer import Writer

STATUS = {"GET": 200, "POST": 201, "PUT": 200, "PATCH": 200, "DELETE": 204}


def verified(server: Server, name: str, question: Question) -> list[str]:
    """Return the paths to measure. Raises LabError, with the first difference, if answers are not Postgres's rows."""
    paths = question.paths
    if question.follow:
        paths = [_fetch(server, name, paths[0])["next"]]
    for path, rows in zip(paths, question.answers, strict=False):
        answer = _fetch(server, name, path)
        # The rows of a list are the answer itself or its `results`; any other object is one row.
        found = answer.get("results", [answer]) if isinstance(answer, dict) else list(answer)
        if difference := compare(found, rows):
            raise LabError(f"{name} answers {path} differently: {difference}")
    return paths


def verified_writes(server: Server, name: str, writer: Writer, requests: list[Request]) -> None:
    """Make the `requests`, and compare each answer with the row in Postgres, and this row with the values sent.

    Raises LabError if they differ, and if the contender takes a faulty request or a write with a wrong API key.
    """
    for request in requests:
        if difference := _wrong(server, name, writer, request):
            raise LabError(f"{name} answers {request.method} {request.path} wrongly: {difference}")
    for request in writer.writing.refused:
        status, _ = _send(server, name, request, writer.headers)
        if not HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR:
            raise LabError(
                f"{name} answers {request.method} {request.path} {request.body} with status {status}"
            )
    writes = [request for request in requests if request.method != "GET"]
    status, _ = _send(server, name, writes[0], {"X-API-Key": "no key"})
    if status not in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        raise LabError(f"{name} answers {writes[0].method} with a wrong API key with status {status}")


def _wrong(server: Server, name: str, writer: Writer, request: Request) -> str | None:
    """Make a request, and return the first difference, in words, of its answer, Postgres's row and the values sent.

    Return None if there is no difference.
    """
    status, body = _send(server, name, request, {} if request.method == "GET" else writer.headers)
    if status != STATUS[request.method]:
        return f"status {status}: {body[:300]!r}"
    last = request.path.rpartition("/")[2]
    if request.method == "DELETE":
        return "the row is still there" if writer.read(int(last)) else None
    if request.method == "GET" and not last.isdecimal():
        return None  # a list, which verified() compares
    answer = json.loads(body)
    held = writer.read(answer["id"] if request.method == "POST" else int(last))
    if held is None:
        return "Postgres has no such row"
    sent = json.loads(request.body) if request.body else {}
    return compare([answer], [held]) or compare([sent], [{field: held[field] for field in sent}])


def compare(answer: list[Row], rows: list[Row]) -> str | None:
    """Return the first difference of an answer to the right rows, in words, or None if there is none.

    Prices are compared as text, to the cent, timestamps as instants, however they are spelled.
    """
    if len(answer) != len(rows):
        return f"{len(answer)} rows, Postgres has {len(rows)}"
    for number, (found, expected) in enumerate(zip(answer, rows, strict=True), 1):
        if found.keys() != expected.keys():
            return f"row {number} has the fields {', '.join(found)}; Postgres's are {', '.join(expected)}"
        for field, value in expected.items():
            if not _same(found[field], value):
                return f"row {number}: {field} is {found[field]!r}, Postgres has {value!r}"
    return None


def _same(found: Any, expected: Any) -> bool:
    if isinstance(expected, datetime.datetime) and isinstance(found, str):
        with suppress(ValueError):
            return datetime.datetime.fromisoformat(found) == expected
    return type(found) is type(expected) and bool(found == expected)


def _fetch(server: Server, name: str, path: str) -> Any:
    status, body = _send(server, name, Request(path), {})
    if status != 200:  # noqa: PLR2004
        raise LabError(f"{name} answers {path} with status {status}: {body[:300]!r}")
    try:
        return json.loads(body)
    except ValueError:
        raise LabError(f"{name} answers {path} with what is not JSON: {body[:300]!r}") from None


def _send(server: Server, name: str, request: Request, headers: Mapping[str, str]) -> tuple[int, bytes]:
    try:
        return server.send(request, headers)
    except (OSError, HTTPException) as error:
        raise LabError(f"{name} does not answer {request.path}: {error!r}") from None
