"""The writes of a resource: POST on its list, PATCH, PUT and DELETE on its rows, declared once as its Listing is.

    PRODUCT_WRITES = Writes(PRODUCT, defaults={"time_created": Now()})

    return await PRODUCT_WRITES.create(request)                # 201 with the row, or a Problem that names the fault
    return await PRODUCT_WRITES.change(request, product_id)    # 200; or 404, 412, 409, 422

Each write is one statement in one round trip, and its answer has the bytes that a GET would answer. Each leaves one
line of the logger `api.audit`, with the route and the id, and never with the content.
"""

import logging
from collections.abc import Iterable, Mapping
from functools import cached_property, partial
from types import NoneType
from typing import Any
from urllib.parse import quote

import psycopg
import structlog
from django.core.exceptions import ImproperlyConfigured
from django.db.models import JSONField
from django.http import HttpRequest, HttpResponse
from django.utils.encoding import escape_uri_path
from pydantic import BaseModel

from api.auth import Identity
from api.problems import Fault, invalid
from api.reads import parameters
from api.reads.listing import Item
from api.writes import content, preconditions
from api.writes.commands import Delete, Insert, Invalidating, Update
from api.writes.inputs import content_of, read
from api.writes.violations import Names, place, problem_of
from ops.postgres.commands import SEEN, Command, Row, Rows, Values, Written, key_name
from ops.postgres.compiled import path_of
from ops.postgres.digests import digest
from ops.postgres.pool import fetch
from ops.postgres.statement import Param
from ops.postgres.transactions import IMMEDIATE, active
from ops.telemetry import request_stats
from ops.telemetry.logs import inform

audit = logging.getLogger("api.audit")

KEY = "path:key"  # the parameter for the row's primary key; no field can have this name
JSON_TYPE = content.JSON
MAX_LOGGED_IDS = 100  # ids in the line of one write


class Writes:
    """The commands that write the rows of an item's listing, and the functions of their endpoints.

    `fields` are the schema's fields that clients may write: by default all that have a column, except an automatic
    key and the time of the write (`auto_now`, `auto_now_add`). `defaults` are values or expressions for fields that a
    POST may leave out; they override the model's own. If `strict`, PATCH, PUT and DELETE need If-Match.
    """

    def __init__(
        self,
        item: Item,
        *,
        fields: Iterable[str] | None = None,
        defaults: Mapping[str, Any] | None = None,
        strict: bool = False,
    ) -> None:
        listing = item.listing
        self.item, self.strict, self.defaults = item, strict, defaults
        self.schema, self.model = listing.schema, listing.model
        if computed := [
            name for name in self.schema.model_fields if path_of(self.schema, name) in listing.annotations
        ]:
            raise ImproperlyConfigured(
                f"{self.schema.__name__}: a write cannot answer {', '.join(computed)}, an annotation of the listing. "
                "Make it a GeneratedField, or write by Insert and Update with a schema without it."
            )
        chosen = None if fields is None else [*fields]
        self.insert = Insert(self.model, self.schema, chosen, defaults=defaults)
        keys = {name for name, column in self.insert.columns.items() if column.field.primary_key}
        self.update = Update(
            listing.rows.filter(pk=Param(KEY)),
            self.schema,
            None if chosen is None else [name for name in chosen if name not in keys],
        )
        self.key_name = key_name(self.model, self.schema)
        prefix = self.schema.__name__.removesuffix("Out")
        shown = {
            name: column for name, column in self.insert.columns.items() if name in self.schema.model_fields
        }
        columns = self.update.columns
        optional = shown.keys() - self.insert.required
        self.documents = [name for name, column in columns.items() if isinstance(column.field, JSONField)]
        # A client may send the key back as it got it.
        self.ignored = self.key_name if self.key_name not in columns else ""
        self.creation = content_of(self.schema, shown, name=f"{prefix}Creation", optional=optional)
        self.patch = content_of(
            self.schema, columns, name=f"{prefix}Patch", optional=columns, ignored=self.ignored
        )
        self.replacement = content_of(self.schema, columns, name=f"{prefix}Replacement", ignored=self.ignored)

    @cached_property
    def delete_(self) -> Delete:
        """The command of DELETE, made at its first use: a model that does not allow it has all other writes."""
        return Delete(self.item.listing.rows.filter(pk=Param(KEY)), self.schema)

    async def create(self, request: HttpRequest) -> HttpResponse:
        """POST: 201 with the new row and its Location, which is the request's path and the key."""
        parameters.refuse(request)
        preconditions.refuse(request)
        values = read(self.creation, content.read(request, self.creation.model_fields))
        row = await self._run(request, self.insert, values)
        response = self._answer(row, 201)
        response["Location"] = f"{escape_uri_path(request.path)}/{quote(row.key, safe='')}"
        return response

    async def change(self, request: HttpRequest, key: Any) -> HttpResponse:
        """PATCH: 200 with the row. Fields that the content leaves out stay as they are (RFC 7396)."""
        values = self._content(request, key, self.patch, (content.MERGE_PATCH, content.JSON))
        if faults := self.unmerged(values):
            raise invalid(faults)
        return self._answer(await self._run(request, self.update, values | self._row(request, key)))

    async def replace(self, request: HttpRequest, key: Any) -> HttpResponse:
        """PUT: 200 with the row. The content must have all its fields. 404 for an unknown key: only POST creates."""
        values = self._content(request, key, self.replacement, (content.JSON,))
        return self._answer(await self._run(request, self.update, values | self._row(request, key)))

    async def delete(self, request: HttpRequest, key: Any) -> HttpResponse:
        """DELETE: 204. 409 `still_referenced` while other rows refer to it."""
        parameters.refuse(request)
        await self._run(request, self.delete_, self._row(request, key))
        return no_content()

    def unmerged(self, values: Mapping[str, Any], at: int | None = None) -> list[Fault]:
        """Return a fault for each JSON object in a patch: it would have to be merged with the stored one.

        `at` is the number of the item in a request of many.
        """
        detail = "cannot be merged: PUT replaces it as a whole"
        return [
            Fault(parameter=name if at is None else place(at, name), code="unsupported_merge", detail=detail)
            for name in self.documents
            if self._is_object(name, values.get(name))
        ]

    def _is_object(self, name: str, value: Any) -> bool:
        """Whether the JSON of a value is an object. If JSON lacks the value's type, it is printed to find out."""
        if isinstance(value, dict | BaseModel):
            return True
        if isinstance(value, str | int | float | list | NoneType):
            return False
        document: str = self.update.columns[name].prepare(value)
        return document.startswith("{")

    def _content(self, request: HttpRequest, key: Any, model: Any, types: tuple[str, ...]) -> dict[str, Any]:
        """Read the content; return its values without the key. Raises Problem, 422 if the key is not the path's."""
        parameters.refuse(request)
        values = read(model, content.read(request, model.model_fields, types))
        if self.ignored in values and str(values.pop(self.key_name)) != str(key):
            raise invalid([Fault(parameter=self.key_name, code="read_only", detail="is the row's for good")])
        return values

    def _row(self, request: HttpRequest, key: Any) -> dict[str, Any]:
        """Return the parameters that find the row. Raises Http404 and Problem."""
        return {KEY: self.item.parse(key), SEEN: preconditions.seen(request, is_required=self.strict)}

    async def _run(
        self, request: HttpRequest, command: Invalidating[Mapping[str, Any], Row], values: Mapping[str, Any]
    ) -> Row:
        """Run a command. Raises a Problem for an error that is the client's fault."""
        try:
            return await write(request, command, values)
        except psycopg.Error as error:
            problem = problem_of(
                error,
                names=names_of(command),
                statement=command.bind(values)[0],
                is_delete=isinstance(command, Delete),
            )
            if problem is None:
                raise
            raise problem from error

    def _answer(self, row: Row, status: int = 200) -> HttpResponse:
        tag = {"ETag": f'"{digest(row.json)}"'}
        return HttpResponse(row.json, status=status, content_type=JSON_TYPE, headers=tag)


def no_content() -> HttpResponse:
    """204, without a Content-Type."""
    response = HttpResponse(status=204)
    del response["Content-Type"]
    return response


def log_write(request: HttpRequest, **what: Any) -> None:
    """Log a write for the audit: method, route, the client's name, and the given fields, such as the rows' ids.

    The route is spelled as in the lines of requests and in metrics. The content of a row is never logged.
    """
    route = request_stats.template_of(request.resolver_match.route) if request.resolver_match else ""
    identity = getattr(request, "auth", None)  # as api/auth.py sets it
    client = {"key": identity.name} if isinstance(identity, Identity) else {}
    line = {"method": request.method, "route": route, **what, **client}
    if "".join(what.get("ids", ())).isdecimal():
        inform(audit, "written", line)
    else:  # keys that are texts may be secrets: this way looks for them
        structlog.get_logger(audit.name).info("written", **line)


class Line:
    """A hook that logs a command with the keys of its first rows; if its outcome is unknown, the line says so."""

    def __init__(self, request: HttpRequest, written: Row | Rows | None) -> None:
        self._request = request
        self._what: dict[str, Any] = {}
        if written:
            self._what["ids"] = written.keys[:MAX_LOGGED_IDS]
            if len(written.keys) > MAX_LOGGED_IDS:
                self._what["rows"] = len(written.keys)

    def __call__(self) -> None:
        log_write(self._request, **self._what)

    def on_unknown(self) -> None:
        log_write(self._request, **self._what, outcome="unknown")


async def write(request: HttpRequest, command: Invalidating[Values, Written], values: Values) -> Written:
    """Run a command and log it. In a transaction, foreign keys are checked with the command, not with the COMMIT."""
    if active():
        await fetch(IMMEDIATE, ())
    return await command.run(values, partial(Line, request))


def names_of(command: Command[Any, Any]) -> Names:
    """Return a function from a field of the model to the name by which clients know it."""
    names = {column.field: name for name, column in command.columns.items()}
    return lambda field: names.get(field, field.name)
