"""A whole listing as a file: NDJSON, JSON or CSV, streamed out of Postgres by COPY.

    PRODUCT_EXPORT = Export(PRODUCTS)

    @router.get("/products/export", **describe_export(PRODUCT_EXPORT))
    async def export_products(request):
        return await PRODUCT_EXPORT.respond(request)

A row is the bytes that the list answers, and all rows are of one moment. Postgres writes them; this module passes
some 60 KiB of them on when the client has taken those before. A worker's memory does not grow with the export.

| an export             | its client sees                                                       | counted as |
| --------------------- | --------------------------------------------------------------------- | ---------- |
| finds no place        | 503 `too_many_exports`                                                | busy       |
| fails before it sends | 503 `database_unavailable`                                            | failed     |
| fails while it sends  | a connection that closes without the end of the content (RFC 9112, 8) | failed     |
| loses its client      |                                                                       | left       |
| has sent all          | the end of the content                                                | complete   |
"""

import asyncio
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
# To requests that have come since the last piece: Postgres then writes on until its buffer is full, and leaves its
# core to others. Reads at 200 a second had a p99 of 4.2 ms beside an export without it, 2.2 with it, 1.2 alone.
GIVE_WAY_SECONDS = 0.002
RETRY_SECONDS = 10  # for a client that finds no place

EXPORTS = metrics.counter("exports_total", "Exports that have ended, by how.", "outcome")
COMPLETE, LEFT, FAILED, BUSY = "complete", "left", "failed", "busy"
ENDED = {outcome: EXPORTS.labels(outcome) for outcome in (COMPLETE, LEFT, FAILED, BUSY)}
ROWS = metrics.counter("export_rows_total", "Rows of exports that were given to clients.").labels()

PLACES = Places("exports", setting="EXPORT_CONCURRENCY", retry_seconds=RETRY_SECONDS)


@dataclass(frozen=True, slots=True)
class ExportQuery:
    """A request for an export, parsed, checked and compiled."""

    name: str  # of the listing
    query: str  # with Django's placeholders
    values: Sequence[str | None]
    format: str
    head: bytes
    has_end: bool  # whether a last line says that it is complete

    @property
    def form(self) -> str:
        """COPY's."""
        return copy_out.CSV if self.format == CSV else copy_out.TEXTS

    def encode(self, rows: copy_out.Rows) -> bytes:
        """Rows of COPY, each with its line feed, as the format has them."""
        if self.format == CSV:  # RFC 4180
            return b"\r\n".join([line[:-1] for line in rows]) + b"\r\n"
        return b"".join(rows)

    def tail(self, rows: int) -> bytes:
        if self.format == JSON:
            return b"]}"
        return orjson.dumps({"complete": True, "rows": rows}) + b"\n" if self.has_end else b""


class Export:
    """The rows of a listing, with its filters, sorts and fields, without its pages.

    Raises ImproperlyConfigured for a listing with a filter of the same name as a parameter of this.
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
        """The rows that a request asks for. Raises Problem: 422 as the list does, 503 while others export.

        psycopg.OperationalError, which Api answers with 503, if the rows cannot even begin.
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
        ):  # in a test, say, whose client may read it on another loop
            return HttpResponse(b"".join([piece async for piece in pieces]), **options)
        return Stream(await anext(pieces, None), pieces, **options)

    def _read(self, query_string: str) -> ExportQuery:
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
        is_distinct = rows.query.distinct  # by the sort key, too, so that no two rows become one
        if not (is_distinct or values.keys() & {"sort", "after", "limit"}):
            rows = rows.order_by()  # as Postgres finds them: an index costs up to three times as much
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
                before = ","  # the first row's is cut off
            shown.pieces = [before + shown.pieces[0], *shown.pieces[1:-1], shown.pieces[-1] + "\n"]
            columns = [shown]
        sql, constants = compile_queryset(rows, columns)
        if "limit" in values:
            sql += f" LIMIT {values['limit']:d}"
        if is_distinct:  # behind the columns Django has selected the sort key
            names = ", ".join(f"c{at}" for at in range(len(columns)))
            sql = f"SELECT {names} FROM ({sql}) AS listed({names})"
        statement = Statement(sql, constants)
        bound = [None if text is None else text.decode() for text in statement.bind(filters | key)]
        return ExportQuery(listing.name, statement.template, bound, form, head, values.get("end", False))

    def _key(self, text: str, types: dict[str, ParameterType]) -> dict[str, Any]:
        """The sort key in `after`, as a row shows it: its parts between commas, of which a text may have some."""
        parts = text.rsplit(",", len(types) - 1)
        names = ",".join(types)
        try:
            if len(parts) != len(types):
                raise Malformed("malformed", "")
            return {
                key_name(at): of.parse(part)
                for at, (of, part) in enumerate(zip(types.values(), parts, strict=True))
            }
        except Malformed:
            detail = f"must be {names} of the last row that the client has, as it shows them, between commas"
            fault = Fault(parameter="after", code="invalid_cursor", detail=detail)
            raise Problem(422, f"after: {detail}", code="invalid_cursor", errors=[fault]) from None


class Stream(StreamingHttpResponse):
    """Sends pieces, and closes them at once where it is not sent to its end. The first, if any, is there already."""

    def __init__(self, first: bytes | None, pieces: AsyncGenerator[bytes, None], **options: Any) -> None:
        super().__init__(pieces, **options)
        self._first, self._pieces = first, pieces

    async def __aiter__(self) -> AsyncGenerator[bytes, None]:
        """A client that takes none of a piece for too long is left, as if it had closed its connection."""
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
    """The content, counted and logged by how it ends."""
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
    """The same, compressed: the first piece at once, the next ones as the coder has something to give.

    In threads, which leave the loop alone meanwhile: to code a piece takes 0.2 ms, and up to 11 at times.
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
