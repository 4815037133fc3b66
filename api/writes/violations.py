"""Turns errors of the database that are the client's fault into problems that name the field.

A constraint in a model's Meta says which fields it is about. Postgres's message names the columns of unique columns
and foreign keys, `Key (slug)=(garden)`. For a value that Postgres cannot read, it names the parameter.

| SQLSTATE          | status, code           | code of the fault                                               |
| ----------------- | ---------------------- | --------------------------------------------------------------- |
| 23505             | 409 conflict           | not_unique                                                      |
| 23P01             | 409 conflict           | the constraint's violation_error_code, or excluded              |
| 23503 of a delete | 409 still_referenced   |                                                                 |
| 23503             | 422 invalid_parameter  | no_such_row                                                     |
| 23514             | 422 invalid_parameter  | the constraint's violation_error_code, or constraint            |
| 23502             | 422 invalid_parameter  | null                                                            |
| 22, 54            | 422 invalid_parameter  | out_of_range, too_long, encoding or malformed                   |
"""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Self, cast

import django.db
import psycopg
from django.apps import apps
from django.db.models import CheckConstraint, Model
from django.http import HttpRequest, HttpResponse
from ninja import NinjaAPI

from api.problems import SAFE, Fault, Problem, invalid
from ops.postgres.commands import NotWritten
from ops.postgres.connection import OutcomeUnknown
from ops.postgres.statement import Statement

Names = Callable[[Any], str]  # from a model's field to the name that clients know

UNIQUE, EXCLUSION, FOREIGN_KEY, CHECK, NOT_NULL = "23505", "23P01", "23503", "23514", "23502"
DETAILS = {
    "not_unique": "has a value that another row has",
    "excluded": "excludes another row's value",
    "no_such_row": "names no row",
    "constraint": "breaks a rule of this resource",
    "null": "may not be null",
    "out_of_range": "is out of range",
    "too_long": "is too long",
    "encoding": "has characters that cannot be stored",
    "malformed": "cannot be understood",
}
VALUES: Mapping[str, str] = {
    "22001": "too_long",
    "22003": "out_of_range",
    "22008": "out_of_range",
    "22021": "encoding",
    "22P05": "encoding",
}
KEY = re.compile(r"\((.+?)\)=\(")  # in DETAIL, in each of Postgres's languages
PARAMETER = re.compile(r"\$(\d+)")  # in CONTEXT of a value that cannot be read
MAX_IDENTIFIER_BYTES = 63


def problem_of(
    error: psycopg.Error,
    *,
    names: Names | None = None,
    statement: Statement | None = None,
    is_delete: bool = False,
) -> Problem | None:
    """Return the answer to a write that failed, or None if the error is not the client's.

    `names` returns the resource's name of a model's field, by default the field's own. `statement` is the compiled
    statement that failed: it has the names of its parameters. `is_delete` tells whether the write was a delete.
    """
    state, diagnostics = error.sqlstate or "", error.diag
    if not state and isinstance(error, psycopg.DataError):  # psycopg itself refuses a NUL
        state = "22021"
    if state == FOREIGN_KEY and (is_delete or _is_referenced(diagnostics)):
        return Problem(409, "Other rows refer to this one.", code="still_referenced")
    if state[:2] in ("22", "54"):
        code = VALUES.get(state, "too_long" if state.startswith("54") else "malformed")
        found = PARAMETER.search(diagnostics.context or "") if statement else None
        number = int(found[1]) if found else 0
        parameters = statement.parameters if statement else ()
        return invalid([
            Fault(
                parameter=parameters[number - 1] if 0 < number <= len(parameters) else "",
                code=code,
                detail=DETAILS[code],
            )
        ])  # fmt: skip
    if state[:2] != "23":
        return None
    code = {UNIQUE: "not_unique", FOREIGN_KEY: "no_such_row", NOT_NULL: "null", EXCLUSION: "excluded"}.get(
        state, "constraint"
    )
    faults = faults_of(code, diagnostics, names)
    if state in (UNIQUE, EXCLUSION):
        said = "; ".join(f"{fault.parameter}: {fault.detail}" for fault in faults)
        return Problem(409, said, code="conflict", errors=faults)
    return invalid(faults)


@dataclass(frozen=True)
class Violation:
    """Stands in for Postgres's diagnostics where a constraint was found broken without an error."""

    schema_name: str
    table_name: str
    constraint_name: str
    column_name: str = ""
    message_detail: str = ""

    @classmethod
    def of(cls, model: type[Model], constraint: str) -> Self:
        """Make one for a constraint of the model's table. Django may spell a schema before the table's name."""
        schema, _, table = model._meta.db_table.strip('"').rpartition('"."')
        return cls(schema, table, constraint)


def faults_of(code: str, diagnostics: Any, names: Names | None = None) -> list[Fault]:
    """Return a fault for each field of a broken constraint, with the constraint's own code or else `code`."""
    detail = DETAILS[code]
    fields: Collection[Any] = ()
    if model := _model(diagnostics):
        constraint = next((c for c in model._meta.constraints if c.name == diagnostics.constraint_name), None)
        fields = _fields(model, constraint, diagnostics)
        if constraint and constraint.violation_error_code:
            code = constraint.violation_error_code
        if constraint and constraint.violation_error_message != constraint.default_violation_error_message:
            detail = str(constraint.get_violation_error_message())
    names = names or (lambda field: str(field.name))
    faults = [Fault(parameter=names(field), code=code, detail=detail) for field in fields]
    return faults or [Fault(parameter="", code=code, detail=detail)]


def _model(diagnostics: Any) -> type[Model] | None:
    """Return the model of the table in question, if any. Django may spell a schema before the table's name."""
    named = {model._meta.db_table.strip('"'): model for model in reversed(apps.get_models())}
    table = diagnostics.table_name or ""
    return named.get(f'{diagnostics.schema_name}"."{table}', named.get(table))


def _fields(model: type[Model], constraint: Any, diagnostics: Any) -> list[Any]:
    """Return the fields that a violated constraint is about."""
    fields: list[Any] = [*model._meta.concrete_fields]
    if diagnostics.column_name:  # NOT NULL
        return [field for field in fields if field.column == diagnostics.column_name]
    named: set[str] = set()
    if constraint is not None:
        named |= {*getattr(constraint, "fields", ())}
        if isinstance(constraint, CheckConstraint):
            named |= _names_in(constraint.condition)
        for expression in getattr(constraint, "expressions", ()):
            named |= _names_in(expression[0] if isinstance(expression, tuple | list) else expression)
        if named:
            return [field for field in fields if {field.name, field.attname} & named]
    if key := KEY.search(diagnostics.message_detail or ""):
        words = {*re.findall(r"\w+", key[1])}
        return [field for field in fields if field.column in words]
    # The check of a PositiveIntegerField has a name of Postgres's.
    table = diagnostics.table_name
    return [f for f in fields if diagnostics.constraint_name == _made_name(table, f.column, "check")]


def _names_in(expression: Any) -> set[str]:
    """The model's fields that a Q, an F or an expression refers to."""
    if isinstance(expression, str):
        return {expression.removeprefix("-").partition("__")[0]}
    if hasattr(expression, "referenced_base_fields"):  # a Q
        return set(expression.referenced_base_fields)
    if hasattr(expression, "get_source_expressions"):
        return {name for source in expression.get_source_expressions() for name in _names_in(source)}
    return _names_in(expression.name) if hasattr(expression, "name") else set()


def _made_name(table: str, column: str, label: str) -> str:
    """Return a name as Postgres's makeObjectName does: the longer of table and column is cut until the name fits."""
    while len(f"{table}_{column}_{label}".encode()) > MAX_IDENTIFIER_BYTES:
        table, column = (
            (table[:-1], column) if len(table.encode()) > len(column.encode()) else (table, column[:-1])
        )
    return f"{table}_{column}_{label}"


def _is_referenced(diagnostics: Any) -> bool:
    """Whether a foreign key's error is about rows that refer to this one, not about a row that this one names."""
    key = KEY.search(diagnostics.message_detail or "")
    model = _model(diagnostics)
    columns = {field.column for field in model._meta.concrete_fields if field.is_relation} if model else set()
    return bool(key and model) and not columns & {*re.findall(r"\w+", key[1] if key else "")}


def handle_errors(api: NinjaAPI) -> None:
    """Make `api` answer the errors of writes, by commands or by the ORM, in each of its endpoints."""

    def answer(request: HttpRequest, error: Any) -> HttpResponse:
        cause = error if isinstance(error, psycopg.Error) else error.__cause__
        found = problem_of(cause) if isinstance(cause, psycopg.Error) and request.method not in SAFE else None
        if found is None:  # a fault of the service
            raise error
        return found.response()

    by_commands = (psycopg.IntegrityError, psycopg.DataError, psycopg.errors.ProgramLimitExceeded)
    for kind in (*by_commands, django.db.IntegrityError, django.db.DataError):
        api.add_exception_handler(kind, answer)
    api.add_exception_handler(NotWritten, lambda _, error: _not_written(cast("NotWritten", error)).response())
    detail = (
        "The database was lost under this write: it may or may not have happened. Look before you try again."
    )
    api.add_exception_handler(
        OutcomeUnknown, lambda _, error: Problem(503, detail, code="write_outcome_unknown").response()
    )


def place(at: int, name: str = "") -> str:
    """Return the name of an item, counted from 0, and of its field in a fault: `items[17].low_price`."""
    return f"items[{at}].{name}" if name else f"items[{at}]"


def _not_written(refusal: NotWritten) -> Problem:
    if refusal.is_missing:
        return Problem(404, "There is no such resource.")
    if refusal.items:
        return invalid([
            Fault(parameter=place(at, name), code="no_such_row", detail=DETAILS["no_such_row"])
            for at, name in refusal.items
        ])  # fmt: skip
    if refusal.unknown:
        return invalid([
            Fault(parameter=name, code="no_such_row", detail=DETAILS["no_such_row"])
            for name in refusal.unknown
        ])  # fmt: skip
    return Problem(412, "The resource has another representation than If-Match asks for.")
