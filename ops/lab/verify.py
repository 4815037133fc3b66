"""Whether a contender answers what Postgres holds. Who answers less has less to do, and no figure of interest."""

import datetime
import json
from contextlib import suppress
from http.client import HTTPException
from typing import Any

from ops.lab.failure import LabError
from ops.lab.scenarios import Question, Row
from ops.lab.servers import Server


def verified(server: Server, name: str, question: Question) -> list[str]:
    """The paths to measure; raises LabError, with the first difference, if their answers are not Postgres's rows."""
    paths = question.paths
    if question.follow:
        paths = [_fetch(server, name, paths[0])["next"]]
    for path, rows in zip(paths, question.answers, strict=False):
        if difference := compare(_rows(_fetch(server, name, path)), rows):
            raise LabError(f"{name} answers {path} differently: {difference}")
    return paths


def compare(answer: list[Row], rows: list[Row]) -> str | None:
    """The first difference, in words.

    Prices are equal as text, to the cent; timestamps are equal as instants, however they are spelled.
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


def _rows(answer: Any) -> list[Row]:
    """A list is itself, or under `results`; an object alone is one row."""
    if isinstance(answer, dict):
        results: list[Row] = answer.get("results", [answer])
        return results
    return list(answer)


def _fetch(server: Server, name: str, path: str) -> Any:
    try:
        status, body = server.get(path)
    except (OSError, HTTPException) as error:
        raise LabError(f"{name} does not answer {path}: {error!r}") from None
    if status != 200:  # noqa: PLR2004
        raise LabError(f"{name} answers {path} with status {status}: {body[:300]!r}")
    try:
        return json.loads(body)
    except ValueError:
        raise LabError(f"{name} answers {path} with what is not JSON: {body[:300]!r}") from None
