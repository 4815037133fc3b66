"""A list resource: declared once, read by keyset pages.

    PRODUCTS = Listing("products", Product, ProductOut, AccessPath("time_created", ...), AccessPath("id"))

    page = PRODUCTS.parse(request)                   # or a Problem that names the parameter
    rows = await fetch(page.select(Product.objects.all()))
    return respond(request, page, rows)

A page is found by comparing the sort key as a row value, `(time_created, id) > (%s, %s)`, which the index answers
directly: page 1 and page 99,000 cost the same. One row more than asked for tells whether there is a next page.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from django.db.models import F, Model, QuerySet
from django.db.models.fields.tuple_lookups import Tuple, TupleGreaterThan, TupleLessThan
from django.http import HttpRequest
from ninja import Schema

from api import cursors, query
from api.access import AccessPath, field_of
from api.cursors import Cursor
from api.kinds import Kind, Malformed, integer, kind_of, one_of
from api.problems import Fault, Problem

DEFAULT_LIMIT = 100
MOST_LIMIT = 1000


class Listing:
    """The rows of a model as a resource: its representation, its access paths, and how requests spell them.

    The first path, ascending, is the default order. A schema field with an alias `category.slug` is read through
    the relation; those named in `on_request` are left out of answers unless `fields` asks for them.
    """

    def __init__(
        self,
        name: str,
        model: type[Model],
        schema: type[Schema],
        *paths: AccessPath,
        on_request: Collection[str] = (),
    ) -> None:
        self.name = name
        self.model = model
        self.schema = schema
        self.paths = paths
        self.columns = {
            field: (info.alias or field).replace(".", "__") for field, info in schema.model_fields.items()
        }
        self.default_fields = tuple(field for field in self.columns if field not in on_request)
        self.item_kinds = {"fields": _fields(tuple(self.columns), tuple(self.columns))}
        self.filters = {name: kind_of(path.field(model, name)) for path in paths for name in path.filters}
        self.kinds: dict[str, Kind] = {
            "limit": integer(1, MOST_LIMIT, default=DEFAULT_LIMIT),
            "sort": one_of([sign + path.sort for path in paths for sign in ("", "-")]),
            **self.filters,
            "fields": _fields(tuple(self.columns), self.default_fields),
            "layout": one_of(("rows", "columns"), default="rows"),
            "cursor": cursors.KIND,
        }
        LISTINGS.append(self)

    def parse(self, request: HttpRequest) -> "Page":
        """Raises Problem 422 for what cannot be understood, is not supported, or is no cursor of this list."""
        values = query.read(request, self.kinds)
        filters = {name: values[name] for name in self.filters if name in values}
        path = self._path(values.get("sort"), filters)
        sort = values.get("sort", path.sort)
        spelled = [f"{name}={self.filters[name].spell(value)}" for name, value in filters.items()]
        continues = "&".join((self.name, sort, *spelled)).encode()
        return Page(
            listing=self,
            path=path,
            sort=sort,
            filters=filters,
            continues=continues,
            cursor=self._cursor(values["cursor"], continues, path) if "cursor" in values else None,
            limit=values.get("limit", DEFAULT_LIMIT),
            fields=values.get("fields", self.default_fields),
            layout=values.get("layout", "rows"),
        )

    def parse_fields(self, request: HttpRequest) -> tuple[str, ...]:
        """The fields asked of a single resource: all of them unless the request names some."""
        fields: tuple[str, ...] = query.read(request, self.item_kinds).get("fields", tuple(self.columns))
        return fields

    def _path(self, sort: str | None, filters: Collection[str]) -> AccessPath:
        """The first path that has the sort, if there is one, and all the filters."""
        for path in self.paths:
            if sort in (None, path.sort, "-" + path.sort) and path.filters.keys() >= set(filters):
                return path
        raise Problem(
            422,
            "No index serves this sort and these filters together.",
            code="unsupported_combination",
            errors=[
                Fault(parameter=name, code="unsupported_combination", detail="not with the others")
                for name in (*filters, *(["sort"] if sort else []))
            ],
            supported=[{"sort": [p.sort, "-" + p.sort], "filters": list(p.filters)} for p in self.paths],
        )

    def _cursor(self, text: str, continues: bytes, path: AccessPath) -> Cursor:
        try:
            cursor = cursors.unseal(text, continues)
            return cursor if cursor.key is None else replace(cursor, key=self._key(path, cursor.key))
        except Malformed as error:
            fault = Fault(parameter="cursor", code=error.code, detail=str(error))
            raise Problem(422, f"cursor: {error}", code=error.code, errors=[fault]) from None

    def _key(self, path: AccessPath, texts: Iterable[str]) -> tuple[Any, ...]:
        return tuple(kind.parse(text) for kind, text in zip(self._key_kinds(path), texts, strict=True))

    def spell_key(self, path: AccessPath, cursor: Cursor) -> Cursor:
        """The cursor with its key as text."""
        if cursor.key is None:
            return cursor
        kinds = self._key_kinds(path)
        return replace(cursor, key=tuple(kind.spell(v) for kind, v in zip(kinds, cursor.key, strict=True)))

    def _key_kinds(self, path: AccessPath) -> list[Kind]:
        return [kind_of(field_of(self.model, name)) for name in path.key(self.model)]


# Every listing of the service, for the system checks.
LISTINGS: list[Listing] = []


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """What one request asks of a listing, parsed and checked."""

    listing: Listing
    path: AccessPath
    sort: str
    filters: Mapping[str, Any]
    continues: bytes
    cursor: Cursor | None
    limit: int
    fields: tuple[str, ...]
    layout: str

    @property
    def backward(self) -> bool:
        """Whether the page is read from its end to its beginning."""
        return self.cursor is not None and self.cursor.before

    @property
    def key(self) -> tuple[str, ...]:
        return self.path.key(self.listing.model)

    def select(self, rows: "QuerySet[Any]") -> "QuerySet[Any, tuple[Any, ...]]":
        """Of `rows`, those of this page and one more, as tuples of `names`, in the order they are read."""
        descending = self.sort.startswith("-") != self.backward
        key = self.cursor and self.cursor.key
        for name, value in self.filters.items():
            if not (key and self.path.filters[name].bounds_start(descending=descending)):
                rows = rows.filter(self.path.condition(self.listing.model, name, value))
        if key:
            beyond = TupleLessThan if descending else TupleGreaterThan
            rows = rows.filter(beyond(Tuple(*map(F, self.key)), key))
        order = [F(name).desc() if descending else F(name).asc() for name in self.key]
        return rows.order_by(*order).values_list(*self.names)[: self.limit + 1]

    @property
    def names(self) -> tuple[str, ...]:
        """The ORM paths that a page selects: the key first, then what the fields need besides."""
        return tuple(dict.fromkeys((*self.key, *(self.listing.columns[field] for field in self.fields))))
