"""POST of any number of rows: a stream of NDJSON or CSV, in one transaction.

    PRODUCT_IMPORT = Import(PRODUCT_WRITES)

    @router.post("/products/import", auth=scope("products:write"), **describe_import(PRODUCT_IMPORT))
    @rate_class("bulk")
    @streamed_body
    async def import_products(request):
        return await PRODUCT_IMPORT.respond(request)    # {"read":1000000,"inserted":1000000,"seconds":51.8}

ops/postgres/load.py describes how lines become rows. A line is refused for the same reasons as the content of a POST,
and by the same code: lines that Postgres finds wrong are read again as such content.
"""

import asyncio
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from time import perf_counter

import orjson
from asgiref.sync import sync_to_async
from django.conf import settings
from django.http import HttpRequest, HttpResponse

from api.cache.changes import ainvalidate, invalidate, invalidate_unknown
from api.places import Places
from api.problems import Fault, Problem
from api.reads import parameters
from api.writes import content, preconditions
from api.writes.inputs import read
from api.writes.resource import Writes, log_write, names_of
from api.writes.violations import DETAILS, Violation, faults_of, problem_of
from ops.asgi.bodies import stream_of
from ops.postgres.connection import OutcomeUnknown
from ops.postgres.lines import Unreadable
from ops.postgres.load import Conflict, Load, WrongHeader, WrongLine
from ops.postgres.long_transaction import LongTransaction, long_transaction
from ops.postgres.pool import pools
from ops.postgres.staging import LEAST_VERSION, Staging

NDJSON = ("application/x-ndjson", "application/jsonl")
CSV = "text/csv"
MAX_FAULTS = 100  # named in one answer
RETRY_SECONDS = 10  # after which a refused client may try again
SPELLING = "in a spelling that an import does not take"
JSON_SCALAR = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?|true|false")
HEADER = {
    "unknown": "is not a field that this request may set",
    "repeated": "may be given once only",
    "missing": "is missing",
}

PLACES = Places("imports", setting="IMPORT_CONCURRENCY", retry_seconds=RETRY_SECONDS)


class Import:
    """Creates any number of the rows that a POST of `writes` creates.

    Raises ImproperlyConfigured if Postgres alone cannot check or make them.
    """

    def __init__(self, writes: Writes) -> None:
        self.writes = writes
        self.plan = Staging(writes.insert, writes.schema)
        self._cells = {cell.name: cell for cell in self.plan.cells}
        self._names = names_of(writes.insert)

    async def respond(self, request: HttpRequest) -> HttpResponse:
        """Import the content; answer 200 with counts and time, after the commit.

        Nothing is imported if it raises Problem or Refused: 408 for a client that is silent, 409 and 422 with the
        lines at fault, 413, 415, 501 for an old Postgres, 503 while others import or after IMPORT_SECONDS.
        """
        parameters.refuse(request)
        preconditions.refuse(request)
        content.check_type(request, (*NDJSON, CSV))
        began = perf_counter()
        with PLACES.taken():
            async with long_transaction() as transaction:
                if transaction.connection.info.server_version < LEAST_VERSION * 10_000:
                    detail = f"An import needs Postgres {LEAST_VERSION} or newer."
                    raise Problem(501, detail, code="unsupported_database")
                try:
                    async with asyncio.timeout(settings.IMPORT_SECONDS):
                        lines, rows = await self._load(request, transaction)
                except TimeoutError:
                    detail = f"An import may take {settings.IMPORT_SECONDS:g} s. Nothing was imported."
                    retry = {"Retry-After": str(RETRY_SECONDS)}
                    raise Problem(503, detail, code="import_timeout", headers=retry) from None
                # From here on, a client that leaves does not end it: cached answers would lack the rows.
                committing = asyncio.create_task(self._commit(request, transaction, rows))
                try:
                    await asyncio.shield(committing)
                finally:
                    await asyncio.wait({committing})
        answer = {"read": lines, "inserted": rows, "seconds": round(perf_counter() - began, 3)}
        return HttpResponse(orjson.dumps(answer), content_type=content.JSON)

    async def _load(self, request: HttpRequest, transaction: LongTransaction) -> tuple[int, int]:
        """Stage, check and insert the rows; return the numbers of lines and of rows. Raises Problem."""
        load = Load(self.plan, transaction.connection)
        is_csv = (request.content_type or "").lower() == CSV
        try:
            lines = await load.receive(stream_of(request), is_csv=is_csv)
            await load.convert()
            wrong = await load.wrong_lines(MAX_FAULTS)
            if wrong or load.broken:
                named: list[Fault] = []
                for each in wrong:
                    if len(named) >= MAX_FAULTS:
                        break
                    named += self._explain(each)
                    await asyncio.sleep(0)  # a line may hold the event loop for some milliseconds
                if last := load.broken:
                    named.append(self._fault(last.line, "", last.code, last.detail))
                raise _refused(422, named)
            return lines, await load.insert(MAX_FAULTS)
        except Unreadable as error:
            raise _refused(422, [self._fault(error.line, "", error.code, error.detail)]) from None
        except WrongHeader as error:
            raise _refused(
                422, (self._fault(1, name, code, HEADER[code]) for name, code in error.faults)
            ) from None
        except Conflict as conflict:
            problem = problem_of(conflict.error, names=self._names)
            if problem is None or not problem.errors:
                raise conflict.error from None
            said = problem.errors
            faults = (
                self._fault(line, f.parameter, f.code, f.detail) for line in conflict.lines for f in said
            )
            raise _refused(problem.status, faults) from None

    async def _commit(self, request: HttpRequest, transaction: LongTransaction, rows: int) -> None:
        """Commit, log the write, and invalidate."""
        try:
            await transaction.commit()
        except OutcomeUnknown:
            log_write(request, rows=rows, outcome="unknown")
            await invalidate_unknown(self.plan.model)
            raise
        log_write(request, rows=rows)
        if asyncio.get_running_loop() in pools:
            await ainvalidate(self.plan.model)
        else:  # in a transaction of Django's
            await sync_to_async(invalidate)(self.plan.model)

    def _explain(self, wrong: WrongLine) -> Iterator[Fault]:
        """Yield the faults of a line, which are those that a POST of it would have."""
        if wrong.content is not None:
            for fault in self._read_again(wrong.content, wrong.refused):
                yield self._fault(wrong.line, fault.parameter, fault.code, fault.detail)
        for name in wrong.unknown:
            yield self._fault(wrong.line, name, "no_such_row", DETAILS["no_such_row"])
        for name in wrong.broken_constraints:
            faults = faults_of("constraint", Violation.of(self.plan.model, name), self._names)
            yield from (
                self._fault(wrong.line, fault.parameter, fault.code, fault.detail) for fault in faults
            )

    def _read_again(self, line: str | dict[str, str | None], refused: Sequence[str]) -> list[Fault]:
        """Return the faults of a line that is wrong by itself. Postgres has refused the values of `refused`."""
        said: list[Fault] = []
        has_fields = False
        try:
            text = line if isinstance(line, str) else self._json_of(line)
            creation = self.writes.creation
            body = content.check(text.encode(), creation.model_fields)
            has_fields = True
            read(creation, body)
        except Problem as problem:
            said = problem.errors or [Fault(parameter="", code="malformed", detail=problem.detail)]
        # Postgres refuses some spellings that this reader takes, and takes some in a cell that JSON lacks: 007.
        if has_fields and not isinstance(line, str):
            said = [each for each in said if each.parameter in refused or each.parameter not in self._cells]
        if has_fields and len(said) < parameters.MAX_FAULTS:  # else the reader may have left faults out
            named = {each.parameter.partition(".")[0] for each in said}
            others = [name for name in refused if name not in named]
            said += [Fault(parameter=name, code="malformed", detail=f"is {SPELLING}") for name in others]
        return said or [Fault(parameter="", code="malformed", detail=f"has a value {SPELLING}")]

    def _fault(self, line: int, name: str, code: str, detail: str) -> Fault:
        if code == "unknown" and name in self.writes.schema.model_fields:
            detail = f"{HEADER[code]}: an export leaves it out by its parameter `fields`"
        return Fault(parameter=".".join(filter(None, (f"lines[{line}]", name))), code=code, detail=detail)

    def _json_of(self, cells: dict[str, str | None]) -> str:
        """Return a line of CSV as the content of a POST."""
        members = []
        for name, text in cells.items():
            cell = self._cells[name]
            if text is None:
                value = "null" if cell.column.field.null else ""
            elif cell.json in ("number", "boolean") and JSON_SCALAR.fullmatch(text):
                value = text
            else:
                value = json.dumps(text)
                if cell.type == "jsonb":
                    with suppress(ValueError, RecursionError):  # the text is no JSON
                        json.loads(text)
                        value = text
            members += [f"{json.dumps(name)}:{value}"] if value else []
        return f"{{{','.join(members)}}}"


def _refused(status: int, faults: Iterator[Fault] | list[Fault]) -> Problem:
    errors = [fault for _, fault in zip(range(MAX_FAULTS), faults, strict=False)]
    more = f" and {len(errors) - 1} more" if len(errors) > 1 else ""
    first = f"{errors[0].parameter}: {errors[0].detail.removesuffix('.')}"
    return Problem(status, f"Nothing was imported. {first}{more}.", errors=errors)
