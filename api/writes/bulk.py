"""The writes of many rows of a resource: POST, PATCH and DELETE of a JSON array, all or nothing.

    PRODUCT_BULK = BulkWrites(PRODUCT_WRITES)

    return await PRODUCT_BULK.create(request)    # 201 with the rows, in the order of the items
    return await PRODUCT_BULK.change(request)    # 200: each item has its `id` and the fields that change
    return await PRODUCT_BULK.delete(request)    # 204: the items are ids

Each write is one statement in one round trip (ops/postgres/bulk.py). A fault names item and field,
`items[17].low_price`. With `Prefer: return=minimal` (RFC 7240) the answer is an array of ids.
"""

from collections.abc import Callable, Sequence
from functools import cached_property, partial
from typing import Any, TypeVar

import psycopg
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest, HttpResponse
from psycopg import errors

from api.limits import rate_class
from api.problems import Fault, Problem, invalid
from api.reads import parameters
from api.reads.parameters import MAX_FAULTS
from api.writes import content, preconditions
from api.writes.commands import DeleteMany, InsertMany, Invalidating, UpdateMany
from api.writes.inputs import Items, content_of, kind_of, quick_of
from api.writes.resource import Writes, names_of, no_content, write
from api.writes.violations import place, problem_of
from ops.asgi.bodies import body_limit
from ops.postgres.bulk import Values, key_of
from ops.postgres.commands import Column, NotWritten, Rows
from ops.postgres.pool import fetch
from ops.postgres.transactions import IMMEDIATE, active, in_transaction, transaction

View = TypeVar("View", bound=Callable[..., Any])

MAX_ITEMS = 1000
MAX_BYTES = 4 * 1024 * 1024
SEARCH_SECONDS = 3.0  # limit of the search for the item that has broken a constraint


def bulk(view: View) -> View:
    """Let an endpoint take MAX_BYTES of content, and count its requests as `bulk`. Put it below the route."""
    return body_limit(MAX_BYTES)(rate_class("bulk")(view))


class BulkWrites:
    """The commands that write many rows, and the functions of their endpoints, made from the writes of single rows.

    Raises ImproperlyConfigured for `strict` writes, since a request cannot have an If-Match for each row.
    """

    def __init__(self, writes: Writes) -> None:
        schema, model, rows = writes.schema, writes.model, writes.item.listing.rows
        if writes.strict:
            raise ImproperlyConfigured(f"{schema.__name__}: strict writes need If-Match, which is one row's.")
        self.writes, self.key_name = writes, key_of(model, schema)
        key = Column(self.key_name, model._meta.pk)
        created = {name: c for name, c in writes.insert.columns.items() if name in schema.model_fields}
        optional = created.keys() - writes.insert.required
        changed = writes.update.columns
        patched = {self.key_name: key, **changed}
        prefix = schema.__name__.removesuffix("Out")
        self.patch = content_of(schema, patched, name=f"{prefix}BulkPatch", optional=changed)
        self.kind = kind_of(schema, self.key_name, key)
        self.creations = Items(writes.creation, quick_of(schema, created, name="Creation", optional=optional))
        self.patches = Items(self.patch, quick_of(schema, patched, name="Patch", optional=changed))
        self.keys = Items(self.kind, kind_of(schema, self.key_name, key, is_quick=True))
        # Pairs of commands: the first answers rows, the second keys only.
        self.insert = [
            InsertMany(model, schema, created, defaults=writes.defaults, only_keys=only_keys)
            for only_keys in (False, True)
        ]
        self.update = [UpdateMany(rows, schema, changed, only_keys=only_keys) for only_keys in (False, True)]

    @cached_property
    def delete_(self) -> DeleteMany:
        """The command of DELETE, made at its first use, as the one of Writes."""
        return DeleteMany(self.writes.item.listing.rows, self.writes.schema)

    async def create(self, request: HttpRequest) -> HttpResponse:
        """POST: 201 with the new rows."""
        items = self._read(request, self.creations)
        return await self._respond(request, self.insert, items, 201)

    async def change(self, request: HttpRequest) -> HttpResponse:
        """PATCH: 200 with the rows. Fields that an item lacks stay as they are (RFC 7396)."""
        items = self._read(request, self.patches, content.MERGE_PATCH, content.JSON)
        _refuse_repeated([item[self.key_name] for item in items], self.key_name)
        if self.writes.documents:
            _refuse([fault for at, item in enumerate(items) for fault in self.writes.unmerged(item, at)])
        return await self._respond(request, self.update, items, 200)

    async def delete(self, request: HttpRequest) -> HttpResponse:
        """DELETE: 204. The items are keys."""
        keys = self._read(request, self.keys)
        _refuse_repeated(keys)
        try:
            await self._write(request, self.delete_, [{self.key_name: key} for key in keys])
        except NotWritten as refusal:  # items are keys, so no fault names a field
            raise NotWritten(items=[(at, "") for at, _ in refusal.items]) from None
        return no_content()

    def _read(self, request: HttpRequest, items: Items, *types: str) -> list[Any]:
        parameters.refuse(request)
        detail = "A write of many rows takes no preconditions: change rows one by one for If-Match."
        preconditions.refuse(request, detail)
        content.check_type(request, types or (content.JSON,))
        found = items.read_flat(request.body, MAX_ITEMS)
        if found is None:
            found = items.read(content.read_items(request, items.names, MAX_ITEMS))
        return found

    async def _respond(
        self, request: HttpRequest, commands: Sequence[Invalidating[Values, Rows]], items: Values, status: int
    ) -> HttpResponse:
        preference = preferred(request)
        rows = await self._write(request, commands[preference == "minimal"], items)
        headers = {"Preference-Applied": f"return={preference}"} if preference else None
        return HttpResponse(rows.json, status=status, content_type=content.JSON, headers=headers)

    async def _write(self, request: HttpRequest, command: Invalidating[Values, Rows], items: Values) -> Rows:
        """Run a command; after a deadlock again, in a transaction. Raises the Problem of the first item at fault."""
        try:
            if not active():
                try:
                    return await write(request, command, items)
                except (errors.DeadlockDetected, errors.SerializationFailure):
                    pass  # nothing was written
            return await in_transaction(lambda _: write(request, command, items))
        except psycopg.Error as error:
            problem = partial(
                problem_of,
                names=names_of(command),
                statement=command.statement,
                is_delete=isinstance(command, DeleteMany),
            )
            if not (found := problem(error)):
                raise
            raise await first_fault(command, items, problem) or found from error


async def first_fault(
    command: Invalidating[Values, Rows], items: Values, problem: Callable[[psycopg.Error], Problem | None]
) -> Problem | None:
    """Search for the first item that cannot be written, in a transaction that is rolled back; return its problem.

    Halves of the items are tried, and kept, until one is left: each item is written about once, by at most 11
    statements for 1,000. None if the parts can be written one after the other, or if the search fails.
    """
    try:
        async with transaction(deadline=SEARCH_SECONDS) as tx:
            await fetch(IMMEDIATE, ())  # there is no COMMIT that would check the foreign keys
            low, high = 0, len(items)
            while low < high:
                middle = (low + high + 1) // 2
                try:
                    async with tx.savepoint():
                        await command.run(items[low:middle])
                    low = middle
                except psycopg.Error as error:
                    found = problem(error)
                    if not found:
                        raise
                    if middle == low + 1:
                        raise _Found(of_item(low, found)) from None
                    high = middle
            raise _Found
    except _Found as end:
        return next(iter(end.args), None)
    except (NotWritten, psycopg.Error):  # rows have changed meanwhile, or the database is slow
        return None


class _Found(Exception):
    """Ends the transaction of a search, which is rolled back, with the problem, if any."""


def of_item(at: int, problem: Problem) -> Problem:
    """Return the problem with the place of item `at` before the names of the fields at fault."""
    faults = problem.errors or [Fault(parameter="", code=problem.code, detail=problem.detail)]
    named = [fault.model_copy(update={"parameter": place(at, fault.parameter)}) for fault in faults]
    detail = "; ".join(f"{fault.parameter}: {fault.detail}" for fault in named)
    return Problem(problem.status, detail, code=problem.code, errors=named)


def _refuse_repeated(keys: Sequence[Any], name: str = "") -> None:
    first: dict[Any, int] = {}
    _refuse([
        Fault(parameter=place(at, name), code="repeated", detail="may be given once only")
        for at, key in enumerate(keys)
        if first.setdefault(key, at) != at
    ])  # fmt: skip


def _refuse(faults: list[Fault]) -> None:
    if faults:
        raise invalid(faults[:MAX_FAULTS])


def preferred(request: HttpRequest) -> str:
    """Return `minimal` or `representation`, as Prefer: return=... asks (RFC 7240, section 4.2), or an empty text."""
    for preference in request.headers.get("Prefer", "").split(","):
        name, _, value = preference.partition(";")[0].partition("=")
        value = value.strip().strip('"')
        if name.strip().lower() == "return" and value in ("minimal", "representation"):
            return value
    return ""
