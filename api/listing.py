"""A list resource: declared once, read by keyset pages.

    PRODUCTS = Listing("products", Product.objects.all(), ProductOut, AccessPath("time_created"), AccessPath("id"))

    page = PRODUCTS.parse(request)               # or a Problem that names the parameter
    return respond(request, page, await page.fetch())

A page is found by comparing the sort key as a row value, `(time_created, id) > ($1, $2)`, which the index answers
directly: page 1 and page 99,000 cost the same. One row more than asked for tells whether there is a next page. Each
shape of request is compiled once; Postgres writes the rows as JSON.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import urlencode

from django.core.exceptions import ImproperlyConfigured
from django.db.models import F, Model, QuerySet
from django.db.models.fields.tuple_lookups import Tuple, TupleGreaterThan, TupleLessThan
from django.http import HttpRequest
from ninja import Schema

from api import cursors, query
from api.access import AccessPath, field_of
from api.cursors import Cursor, seal
from api.kinds import Kind, Malformed, integer, kind_of, one_of
from api.problems import Fault, Problem
from ops.postgres.compiled import Columns, path_of, row, value
from ops.postgres.statement import Param

PARAMETERS = ("limit", "sort", "fields", "layout", "cursor")
DEFAULT_LIMIT = 100
MOST_LIMIT = 1000
MOST_SHAPES = 512  # compiled queries a listing keeps; each takes about 10 kB, and 200 us to compile again
MOST_REQUESTS = 1024  # parsed query strings a listing keeps; a hit saves 20 us and more


@dataclass(frozen=True, slots=True)
class Shape:
    """What makes one compiled query differ from another: all of a request but its values."""

    path: AccessPath
    descending: bool  # as it is read: a page before a cursor is read against the sort
    resumed: bool  # whether it begins at a cursor's key
    filters: tuple[str, ...]
    fields: tuple[str, ...]
    layout: str
    limit: int


@dataclass(frozen=True, slots=True)
class Page:
    """What one request asks of a listing, parsed, checked and compiled."""

    listing: "Listing"
    shape: Shape
    continues: bytes  # what a cursor of this list is bound to: resource, sort and filters
    cursor: Cursor | None
    query: Columns
    parameters: Sequence[bytes | None]
    link: str  # the query string of its neighbours, without their cursor

    @property
    def backward(self) -> bool:
        """Whether it is read from its end to its beginning."""
        return self.cursor is not None and self.cursor.before

    async def fetch(self) -> tuple[list[bytes], int]:
        """The page's columns as `Listing.compile` lays them out, and how many rows: limit + 1 if there are more."""
        return await self.query.fetch(self.parameters)


class Listing:
    """The rows of a queryset as a resource: their representation, their access paths, and how requests spell them.

    The first path, ascending, is the default order. A schema field with an alias `category.slug` is read through
    the relation; those named in `on_request` are left out of answers unless `fields` asks for them.
    """

    def __init__(
        self,
        name: str,
        rows: "QuerySet[Any]",
        schema: type[Schema],
        *paths: AccessPath,
        on_request: Collection[str] = (),
    ) -> None:
        self.name = name
        self.rows = rows
        self.model: type[Model] = rows.model
        self.schema = schema
        self.paths = paths
        self.fields = tuple(schema.model_fields)
        self.default_fields = tuple(field for field in self.fields if field not in on_request)
        self.filters = {
            name: kind_of(path.field(self.model, name)) for path in paths for name in path.filters
        }
        self.kinds: dict[str, Kind] = {
            "limit": integer(1, MOST_LIMIT, default=DEFAULT_LIMIT),
            "sort": one_of([sign + path.sort for path in paths for sign in ("", "-")]),
            **self.filters,
            "fields": _fields(self.fields, self.default_fields),
            "layout": one_of(("rows", "columns"), default="rows"),
            "cursor": cursors.KIND,
        }
        self.item_kinds = {"fields": _fields(self.fields, self.fields)}
        self.keys = {path: self._key(path) for path in paths}
        if len(self.kinds) < len(self.filters) + len(PARAMETERS):
            raise ImproperlyConfigured(f"The filters of {name} may not be named {', '.join(PARAMETERS)}.")
        row(self.model, schema, self.fields)  # refuses, now, what cannot be answered
        self.compile = lru_cache(MOST_SHAPES)(self._compile)
        self._parse = lru_cache(MOST_REQUESTS)(self._read)
        LISTINGS.append(self)

    def parse(self, request: HttpRequest) -> Page:
        """Raises Problem 422 for what cannot be understood, is not supported, or is no cursor of this list."""
        return self._parse(request.META["QUERY_STRING"])

    def spell(self, query_string: str) -> str:
        """A list's query string in its one spelling: equal for requests that have equal answers. Raises Problem."""
        page = self._parse(query_string)
        cursor = seal(page.cursor, page.continues) if page.cursor else ""
        return f"{page.link}&cursor={cursor}" if cursor else page.link

    def spell_fields(self, query_string: str) -> str:
        """The same for a single resource's query string."""
        fields = self._read_fields(query_string)
        return "" if fields == self.fields else f"fields={','.join(fields)}"

    def parse_fields(self, request: HttpRequest) -> tuple[str, ...]:
        """The fields asked of a single resource: all of them unless the request names some."""
        return self._read_fields(request.META["QUERY_STRING"])

    def _read_fields(self, query_string: str) -> tuple[str, ...]:
        fields: tuple[str, ...] = query.read(query_string, self.item_kinds).get("fields", self.fields)
        return fields

    def _read(self, query_string: str) -> Page:
        values = query.read(query_string, self.kinds)
        filters = {name: values[name] for name in self.filters if name in values}
        path = self._path(values.get("sort"), filters)
        sort = values.get("sort", path.sort)
        spelled = {name: self.filters[name].spell(value) for name, value in filters.items()}
        continues = "&".join(
            (self.name, sort, *(f"{name}={text}" for name, text in spelled.items()))
        ).encode()
        cursor, key = self._cursor(values["cursor"], continues, path) if "cursor" in values else (None, {})
        descending = sort.startswith("-") != bool(cursor and cursor.before)
        if key:  # what a cursor says better is left out
            filters = {
                n: v for n, v in filters.items() if not path.filters[n].bounds_start(descending=descending)
            }
        shape = Shape(
            path,
            descending,
            resumed=bool(key),
            filters=tuple(filters),
            fields=values.get("fields", self.default_fields),
            layout=values.get("layout", "rows"),
            limit=values.get("limit", DEFAULT_LIMIT),
        )
        compiled = self.compile(shape)
        parameters = compiled.statement.bind(filters | key)
        return Page(self, shape, continues, cursor, compiled, parameters, self._link(shape, sort, spelled))

    def _link(self, shape: Shape, sort: str, parameters: dict[str, str]) -> str:
        """A query string that asks for the same, in the one spelling that this service gives it."""
        parameters = dict(parameters)
        if sort != self.paths[0].sort:
            parameters["sort"] = sort
        if shape.limit != DEFAULT_LIMIT:
            parameters["limit"] = str(shape.limit)
        if shape.fields != self.default_fields:
            parameters["fields"] = ",".join(shape.fields)
        if shape.layout != "rows":
            parameters["layout"] = shape.layout
        return urlencode(parameters, safe=",:")

    def _compile(self, shape: Shape) -> Columns:
        """The query of a shape, in the order it is read, with one row more than the limit.

        Its columns are, by layout, the rows as objects or each field; then the key's fields that `fields` lacks.
        """
        rows = self.rows
        for name in shape.filters:
            rows = rows.filter(shape.path.condition(self.model, name, Param(name)))
        key = shape.path.key(self.model)
        if shape.resumed:
            beyond = TupleLessThan if shape.descending else TupleGreaterThan
            rows = rows.filter(
                beyond(Tuple(*map(F, key)), tuple(map(Param, map(_key_name, range(len(key))))))
            )
        order = [F(name).desc() if shape.descending else F(name).asc() for name in key]
        lacking = [field for field in self.keys[shape.path] if field not in shape.fields]
        if shape.layout == "rows":
            columns = [row(self.model, self.schema, shape.fields)]
        else:
            columns = [value(self.model, self.schema, field) for field in shape.fields]
        columns += [value(self.model, self.schema, field) for field in lacking]
        return Columns(rows.order_by(*order), columns, limit=shape.limit + 1)

    def _path(self, sort: str | None, filters: Collection[str]) -> AccessPath:
        """The first path that has the sort, if there is one, and all the filters."""
        for path in self.paths:
            if sort in (None, path.sort, "-" + path.sort) and path.filters.keys() >= set(filters):
                return path
        served = {name: f"is served with sort [-]{p.sort}" for p in self.paths for name in p.filters}
        if sort:
            served["sort"] = "serves other filters than these"
        raise Problem(
            422,
            "No index serves this sort and these filters together.",
            code="unsupported_combination",
            errors=[
                Fault(parameter=name, code="unsupported_combination", detail=detail)
                for name, detail in served.items()
                if name in filters or name == "sort"
            ],
            supported=[{"sort": [p.sort, "-" + p.sort], "filters": list(p.filters)} for p in self.paths],
        )

    def _cursor(self, text: str, continues: bytes, path: AccessPath) -> tuple[Cursor, dict[str, Any]]:
        """The cursor and the values of its key, by parameter."""
        try:
            cursor = cursors.unseal(text, continues)
            kinds = self.keys[path].values()
            values = [
                kind.parse(part) for kind, part in zip(kinds, cursor.key or (), strict=cursor.key is not None)
            ]
        except Malformed as error:
            fault = Fault(parameter="cursor", code=error.code, detail=str(error))
            raise Problem(422, f"cursor: {error}", code=error.code, errors=[fault]) from None
        return cursor, {_key_name(at): value for at, value in enumerate(values)}

    def _key(self, path: AccessPath) -> dict[str, Kind]:
        """The kinds of the path's key, by the schema's field that shows each."""
        shown = {path_of(self.schema, field): field for field in self.fields}
        columns = path.key(self.model)
        if not shown.keys() >= set(columns):
            raise ImproperlyConfigured(
                f"{self.schema.__name__} needs the fields {columns} to sort {self.name} by."
            )
        return {shown[column]: kind_of(field_of(self.model, column)) for column in columns}


# Every listing of the service, for the system checks.
LISTINGS: list[Listing] = []


def _key_name(at: int) -> str:
    return f"key{at}"


def _fields(known: Sequence[str], default: Sequence[str]) -> Kind:
    """A comma-separated choice of fields, answered in the schema's order whatever the order of the request."""

    def parse(text: str) -> tuple[str, ...]:
        asked = text.split(",")
        if len(set(asked)) < len(asked) or not set(asked) <= set(known):
            raise Malformed(
                "not_a_choice", f"must be some of {','.join(known)}, each once, separated by commas"
            )
        return tuple(field for field in known if field in asked)

    one = "|".join(known)
    schema = {"type": "string", "pattern": f"^({one})(,({one}))*$", "default": ",".join(default)}
    return Kind(parse, ",".join, schema)
