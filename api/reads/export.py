"""A whole listing as a file: NDJSON, JSON or CSV, streamed out of Postgres by COPY.

    PRODUCT_EXPORT = Export(PRODUCTS)

    @router.get("/products/export", **describe_export(PRODUCT_EXPORT))
    async def export_products(request):
        return await PRODUCT_EXPORT.respond(request)

A row has the same bytes as in the list, and all rows are of one moment. Postgres writes them; this module passes on
pieces of about 60 KiB, each when the client has taken the one before. So a worker's memory does not grow with them.

| an export             | its client sees                                                       | counted as |
| --------------------- | --------------------------------------------------------------------- | ---------- |
| finds no place        | 503 `too_many_exports`                                                | busy       |
| fails before it sends | 503 `database_unavailable`                                            | failed     |
| fails while it sends  | a connection that closes without the end of the content (RFC 9112, 8) | failed     |
| loses its client      |                                                                       | left       |
| has sent all          | the end of the content                                                | complete   |
"""

import asyncio
import csv
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, cast

import orjson
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db.models import BooleanField
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse

from api.cache.encodings import IDENTITY, STREAM_CODERS, Coder, choose
from api.places import Places
from api.problems import Fault, Problem
from api.reads import parameters
from api.reads.listing import Listing, key_name
from api.reads.parameters import Malformed, ParameterType, integer, one_of, type_of
from ops.asgi.admission import admission
from ops.asgi.head import HEAD
from ops.postgres import copy_out
from ops.postgres.compiled import Cell, Json, by_head, compile_queryset, row
from ops.postgres.pool import pools
from ops.postgres.statement import Statement
from ops.telemetry.logs import inform
from ops.telemetry.metrics import metrics

logger = logging.getLogger(__name__)

NDJSON, JSON, CSV = "ndjson", "json", "csv"  # the first is the default
CONTENT_TYPES = {
    NDJSON: "application/x-ndjson",
    JSON: "application/json",
    CSV: "text/csv; charset=utf-8; header=present",
}
BYTE_ORDER_MARK = "\ufeff"  # without it, Excel takes UTF-8 for the code page of its country
MOST_ROWS = 2**63 - 1
# Pause of an export if requests have begun since its last piece: Postgres then fills its buffer, and leaves its core
# to others. Reads at 200 a second have a p99 of 1.2 ms; during an export 4.2 without the pause, and 2.2 with it.
GIVE_WAY_SECONDS = 0.002
RETRY_SECONDS = 10  # after which a refused client may try again

EXPORTS = metrics.counter("exports_total", "Exports that have ended, by how.", "outcome")
COMPLETE, LEFT, FAILED, BUSY = "complete", "left", "failed", "busy"
ENDED = {outcome: EXPORTS.labels(outcome) for outcome in (COMPLETE, LEFT, FAILED, BUSY)}
ROWS = metrics.counter("export_rows_total", "Rows of exports that were given to clients.").labels()

PLACES = Places("exports", setting="EXPORT_CONCURRENCY", retry_seconds=RETRY_SECONDS)


@dataclass(frozen=True, slots=True)
class ExportQuery:
    """A request for an export, parsed, checked and compiled."""

    name: str  # of the listing
    query: str  # SQL with Django's placeholders for `values`
    values: Sequence[str | None]
    format: str
    head: bytes  # before the first row
    has_end: bool  # whether a last line says that the export is complete

    @property
    def form(self) -> str:
        """The form in which COPY writes the rows."""
        return copy_out.CSV if self.format == CSV else copy_out.TEXTS

    def encode(self, rows: copy_out.Rows) -> bytes:
        """Return rows of COPY, each with its line feed, in the export's format."""
        if self.format == CSV:  # RFC 4180
            return b"\r\n".join([line[:-1] for line in rows]) + b"\r\n"
        return b"".join(rows)

    def tail(self, rows: int) -> bytes:
        """Return the content after the last of `rows` rows."""
        if self.format == JSON:
            return b"]}"
        return orjson.dumps({"complete": True, "rows": rows}) + b"\n" if self.has_end else b""


class Export:
    """The rows of a listing, with its filters, sorts and fields, without its pages.

    Raises ImproperlyConfigured if a filter of the listing has the name of a parameter of the export.
    """

    def __init__(self, listing: Listing) -> None:
        self.listing = listing
        flag = type_of(BooleanField())
        own = {
            "format": one_of(list(CONTENT_TYPES), default=NDJSON),
            "limit": integer(1, MOST_ROWS),
            "after": ParameterType(str, str, {"type": "string", "minLength": 1}),
            "end": flag,
            "spreadsheet": flag,
        }
        if taken := own.keys() & listing.filters:
            raise ImproperlyConfigured(f"{listing.name} cannot be exported: its filters are named {taken}.")
        shared = {
            name: known
            for name, known in listing.parameter_types.items()
            if name not in ("limit", "layout", "cursor")
        }
        self.parameter_types: dict[str, ParameterType] = shared | own

    async def respond(self, request: HttpRequest) -> HttpResponse | StreamingHttpResponse:
        """Return a stream of the rows that a request asks for, once its first piece is there.

        Raises Problem 422 as the list does, Problem 503 if too many exports run, and psycopg.OperationalError, which
        Api answers with 503, if the first rows cannot be read.
        """
        asked = self._read(parameters.string_of(request))
        headers = {
            "Content-Disposition": f'attachment; filename="{self.listing.name}.{asked.format}"',
            "Vary": "Accept-Encoding",
        }
        coding = choose(request.headers.get("Accept-Encoding", "").encode())
        if coding != IDENTITY:
            headers["Content-Encoding"] = coding
        options: dict[str, Any] = {"content_type": CONTENT_TYPES[asked.format], "headers": headers}
        pieces = _pieces(asked)
        if HEAD in getattr(request, "scope", {}):
            return Stream(None, pieces, **options)
        if coding != IDENTITY:
            pieces = _coded(pieces, STREAM_CODERS[coding]())
        if (
            asyncio.get_running_loop() not in pools
        ):  # as in a test: its client may read a stream on another loop
            return HttpResponse(b"".join([piece async for piece in pieces]), **options)
        return Stream(await anext(pieces, None), pieces, **options)

    def _read(self, query_string: str) -> ExportQuery:
        """Parse, check and compile a request. Raises Problem 422."""
        values = parameters.read(query_string, self.parameter_types)
        listing, form = self.listing, values.get("format", NDJSON)
        _refuse_unless(form == NDJSON or not values.get("end"), "end", "is for ndjson only")
        _refuse_unless(form == CSV or not values.get("spreadsheet"), "spreadsheet", "is for csv only")
        filters = {name: values[name] for name in listing.filters if name in values}
        path = listing.find_path(values.get("sort"), filters)
        sort: str = values.get("sort", path.sort)
        descending = sort.startswith("-")
        key = self._key(values["after"], listing.keys[path]) if "after" in values else {}
        rows = listing.select(path, filters, descending=descending, resumed=bool(key))
        is_distinct = rows.query.distinct  # DISTINCT compares the sort key, too, so no two rows become one
        if not (is_distinct or values.keys() & {"sort", "after", "limit"}):
            rows = rows.order_by()  # in the order of the table: an index costs up to three times as much
        fields: tuple[str, ...] = values.get("fields", listing.default_fields)
        shape, annotations = (listing.model, listing.schema), listing.annotations
        columns: list[Json]
        head = b""
        if form == CSV:
            chosen, is_spreadsheet = by_head(fields), values.get("spreadsheet", False)
            head = f"{BYTE_ORDER_MARK if is_spreadsheet else ''}{','.join(chosen)}\r\n".encode()
            columns = [
                Cell(*shape, name, annotations, members, is_inert=is_spreadsheet)
                for name, members in chosen.items()
            ]
        else:
            shown = row(*shape, fields, annotations)
            before = ""
            if form == JSON:
                head = b'{"results":['
                before = ","  # _pieces cuts it off the first row
            shown.pieces = [before + shown.pieces[0], *shown.pieces[1:-1], shown.pieces[-1] + "\n"]
            columns = [shown]
        sql, constants = compile_queryset(rows, columns)
        if "limit" in values:
            sql += f" LIMIT {values['limit']:d}"
        if is_distinct:  # after these columns, Django has selected the sort key
            names = ", ".join(f"c{at}" for at in range(len(columns)))
            sql = f"SELECT {names} FROM ({sql}) AS listed({names})"
        statement = Statement(sql, constants)
        bound = [None if text is None else text.decode() for text in statement.bind(filters | key)]
        return ExportQuery(listing.name, statement.template, bound, form, head, values.get("end", False))

    def _key(self, text: str, types: dict[str, ParameterType]) -> dict[str, Any]:
        """Return the sort key in `after`, by name of its Param. Raises Problem 422.

        The parts stand as a row shows them, separated by commas. If one is a text, it may have commas of its own. If
        several are, they are quoted as in CSV.
        """
        texts = [at for at, of in enumerate(types.values()) if _takes_commas(of)]
        names = ",".join(types)
        try:
            if len(texts) > 1:
                parts = next(csv.reader([text], strict=True), [])
            else:
                *before, rest = text.split(",", texts[0] if texts else 0)
                parts = [*before, *rest.rsplit(",", len(types) - 1 - len(before))]
            if len(parts) != len(types):
                raise Malformed("malformed", "")
            return {
                key_name(at): of.parse(part)
                for at, (of, part) in enumerate(zip(types.values(), parts, strict=True))
            }
        except (Malformed, csv.Error):
            between = "as a line of CSV" if len(texts) > 1 else "between commas"
            detail = f"must be {names} of the last row that the client has, as it shows them, {between}"
            fault = Fault(parameter="after", code="invalid_cursor", detail=detail)
            raise Problem(422, f"after: {detail}", code="invalid_cursor", errors=[fault]) from None


def _takes_commas(of: ParameterType) -> bool:
    try:
        of.parse(",")
    except Malformed:
        return False
    return True


class Stream(StreamingHttpResponse):
    """Sends `first`, unless it is None, and then `pieces`; closes these at once if the response ends early."""

    def __init__(self, first: bytes | None, pieces: AsyncGenerator[bytes, None], **options: Any) -> None:
        super().__init__(pieces, **options)
        self._first, self._pieces = first, pieces

    async def __aiter__(self) -> AsyncGenerator[bytes, None]:
        """Yield the pieces. A client that takes too long for one is treated as if it had closed its connection."""
        loop, task = asyncio.get_running_loop(), cast("asyncio.Task[Any]", asyncio.current_task())
        piece = self._first
        async with aclosing(self._pieces) as pieces:
            while piece is not None:
                patience = loop.call_later(settings.STREAM_PATIENCE_SECONDS, task.cancel)
                try:
                    yield piece
                finally:
                    patience.cancel()
                piece = await anext(pieces, None)


async def _pieces(asked: ExportQuery) -> AsyncGenerator[bytes, None]:
    """Yield the content without compression; count and log how the export ends."""
    rows, before, outcome, begun = 0, asked.head, FAILED, admission.begun
    try:
        with PLACES.taken():
            async with aclosing(copy_out.copy_out(asked.query, asked.values, asked.form)) as batches:
                async for batch in batches:
                    piece = asked.encode(batch)
                    if not rows and asked.format == JSON:
                        piece = piece.removeprefix(b",")
                    rows += len(batch)
                    yield before + piece
                    ROWS.value += len(batch)
                    before = b""
                    if admission.begun != begun:
                        begun = admission.begun
                        await asyncio.sleep(GIVE_WAY_SECONDS)
            if end := before + asked.tail(rows):
                yield end
            outcome = COMPLETE
    except Problem:
        outcome = BUSY
        raise
    except (GeneratorExit, asyncio.CancelledError):
        outcome = LEFT
        raise
    finally:
        ENDED[outcome].value += 1
        if outcome != BUSY:
            line = {"export": asked.name, "format": asked.format, "outcome": outcome, "rows": rows}
            inform(logger, "exported", line)


async def _coded(pieces: AsyncGenerator[bytes, None], coder: Coder) -> AsyncGenerator[bytes, None]:
    """Yield the pieces compressed: the first one at once, the others when the coder has output.

    Threads compress them, so that the event loop is not blocked: a piece takes 0.2 ms, and sometimes 11 ms.
    """
    async with aclosing(pieces):
        is_first = True
        async for piece in pieces:
            coded = await asyncio.to_thread(coder.compress, piece)
            if is_first:
                coded += coder.flush_block()
                is_first = False
            if coded:
                yield coded
    yield await asyncio.to_thread(coder.flush)


def _refuse_unless(is_served: bool, parameter: str, detail: str) -> None:  # noqa: FBT001
    if not is_served:
        fault = Fault(parameter=parameter, code="unsupported_combination", detail=detail)
        raise Problem(422, f"{parameter}: {detail}", code="unsupported_combination", errors=[fault])
