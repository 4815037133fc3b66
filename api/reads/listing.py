"""A list resource: declared once, read by keyset pages.

    PRODUCTS = Listing("products", Product.objects.all(), ProductOut, AccessPath("time_created"), AccessPath("id"))
    PRODUCT = PRODUCTS.one("product_id")

    return await PRODUCTS.respond(request)               # a page, or a Problem that names the parameter at fault
    return await PRODUCT.respond(request, product_id)    # one row, or 404

A page is found by comparing the sort key as a row value, `(time_created, id) > ($1, $2)`, which the index answers
directly: page 1 and page 99,000 cost the same. The query reads one row more than asked for, which tells whether there
is a next page. Each shape of request is compiled once; Postgres writes the rows as JSON.
"""

from collections.abc import Awaitable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from hashlib import blake2b
from typing import Any, ClassVar
from urllib.parse import urlencode

import orjson
from django.core.exceptions import ImproperlyConfigured
from django.db.models import F, Model, QuerySet
from django.db.models.fields.tuple_lookups import Tuple, TupleGreaterThan, TupleLessThan
from django.http import Http404, HttpRequest, HttpResponse
from ninja import Schema

from api.cache.policy import Dependency, lineage, models_of
from api.problems import Fault, Problem
from api.reads import cursors, parameters
from api.reads.access import AccessPath, field_of
from api.reads.list_query import LAYOUTS, Layout, ListQuery
from api.reads.parameters import Malformed, ParameterType, integer, key_type_of, one_of, type_of
from ops.postgres.compiled import Columns, Members, One, members_of, path_of, row
from ops.postgres.digests import digest
from ops.postgres.json_sql import target_of
from ops.postgres.nesting import More, marker_of
from ops.postgres.statement import Param

PARAMETERS = ("limit", "sort", "fields", "layout", "cursor")
DEFAULT_LIMIT = 100
MAX_LIMIT = 1000
MAX_SHAPES = 512  # compiled queries a listing keeps; each takes about 10 kB, and 200 us to compile again
MAX_ITEM_SHAPES = 256  # the same for single rows: nine fields have 511 choices, but clients make few of them
MAX_PAGE_ROWS = (
    100_000  # rows of a page and of the lists in its rows: long lists lower the maximum of `limit`
)
MAX_REQUESTS = 1024  # parsed query strings a listing keeps; a hit saves 20 us and more


@dataclass(frozen=True, slots=True)
class Shape:
    """The key of a compiled query: all of a request except its values."""

    path: AccessPath
    descending: bool  # the direction of reading: a page before a cursor is read against the sort
    resumed: bool  # whether reading begins at a cursor's key
    filters: tuple[str, ...]
    fields: tuple[str, ...]
    layout: str
    limit: int


class Listing:
    """The rows of a queryset as a resource: their representation, their access paths, their parameters.

    The first path, ascending, is the default order. A schema field with an alias such as `category.slug` is read
    through the relation. A field with a schema as its type is an object, one with a list of a schema has the related
    rows (ops/postgres/nesting.py), and a field may be an annotation of the queryset. Answers leave out the fields in
    `on_request`, and the `More` of a list among them, unless the parameter `fields` asks for them.
    """

    cost = 0.0  # not expensive: a page takes a millisecond (api/cache/policy.py)

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
        self.annotations = rows.query.annotations
        query = rows.query
        if query.is_sliced or query.combinator or query.distinct_fields:
            raise ImproperlyConfigured(
                f"The rows of {name} may be no slice, no union and no distinct(fields): a page has its own."
            )
        computed: list[Any] = [query.where, *query.annotations.values()]
        if any(each.contains_over_clause for each in computed):
            raise ImproperlyConfigured(
                f"The rows of {name} may have no window, which would be over each page: put it into a Subquery."
            )
        self.fields = tuple(schema.model_fields)
        self.json = row(self.model, schema, self.fields, self.annotations)  # raises if it cannot be written
        members = members_of(self.model, schema, self.annotations)
        self.default_fields = tuple(
            field
            for field in self.fields
            if field not in on_request
            and not ((more := marker_of(schema, field, More)) and more.of in on_request)
        )
        self.filters: dict[str, ParameterType] = {}
        for path in paths:
            for filter_name, wanted in path.filters.items():
                field = path.field(self.model, filter_name)
                known = type_of(field if wanted.column else target_of(field))
                if self.filters.setdefault(filter_name, known).schema != known.schema:
                    raise ImproperlyConfigured(
                        f"The filter {filter_name} of {name} has another type, or other bounds, with sort "
                        f"{path.sort} than with {self.sorts_of(filter_name)[0]}: give it two names."
                    )
        most = min(MAX_LIMIT, MAX_PAGE_ROWS // self.json.contents.rows)
        self.default_limit = min(DEFAULT_LIMIT, most)
        self.parameter_types: dict[str, ParameterType] = {
            "limit": integer(1, most, default=self.default_limit),
            "sort": one_of([*dict.fromkeys(sign + path.sort for path in paths for sign in ("", "-"))]),
            **self.filters,
            "fields": _fields(members, self.default_fields),
            "layout": one_of(LAYOUTS, default=LAYOUTS[0]),
            "cursor": cursors.PARAMETER_TYPE,
        }
        self.item_parameter_types = {"fields": _fields(members, self.fields)}
        shown = {path_of(schema, field): field for field, inner in members.items() if not inner}
        # For each path, the schema fields that show the parts of its sort key, with their types.
        self.keys: dict[AccessPath, dict[str, ParameterType]] = {}
        for path in paths:
            columns = path.key(self.model)
            if not shown.keys() >= set(columns):
                raise ImproperlyConfigured(f"{schema.__name__} needs the fields {columns} to sort {name} by.")
            self.keys[path] = {shown[name]: key_type_of(field_of(self.model, name)) for name in columns}
        if len(self.parameter_types) < len(self.filters) + len(PARAMETERS):
            raise ImproperlyConfigured(f"The filters of {name} may not be named {', '.join(PARAMETERS)}.")
        self.compile = lru_cache(MAX_SHAPES)(self._compile)
        self.compile_item = lru_cache(MAX_ITEM_SHAPES)(
            lambda fields: One(self.rows.filter(pk=Param("key")), self.schema, fields)
        )
        self._parse = lru_cache(MAX_REQUESTS)(self._read)
        LISTINGS.append(self)

    def respond(self, request: HttpRequest) -> Awaitable[HttpResponse]:
        """Return an awaitable of the page that a request asks for. Raises Problem 422 at once if it cannot be served.

        The awaitable raises psycopg.OperationalError, which Api answers with 503.
        """
        return self._parse(parameters.string_of(request)).respond(request.path)

    async def warm(self) -> None:
        """Compile and run the first pages of all orders, which clients ask for first."""
        for path in self.paths:
            for sign in ("", "-"):
                await self._read(f"sort={sign}{path.sort}").respond("/")

    @property
    def parameters(self) -> Collection[str]:
        return self.parameter_types

    def canonical_query(self, query: str) -> str:
        """Return the same query string for all requests with the same answer. Raises Problem 422."""
        asked = self._parse(query)
        cursor = cursors.sign(asked.cursor, asked.continues) if asked.cursor else ""
        return f"{asked.link}&cursor={cursor}" if cursor else asked.link

    def one(self, parameter: str) -> "Item":
        """Return the resource of a single row: the path parameter `parameter` has its primary key.

        Raises ImproperlyConfigured for a type of primary key that a parameter cannot have.
        """
        return Item(self, parameter, type_of(target_of(self.model._meta.pk)))

    def sorts_of(self, name: str) -> list[str]:
        """The sorts with which the filter `name` is served."""
        return [*dict.fromkeys(path.sort for path in self.paths if name in path.filters)]

    @cached_property
    def depends_on(self) -> tuple[Dependency, ...]:
        """The models that a page depends on: the listing's own, and all others that it reads."""
        return tuple(map(Dependency, (self.model, *self.related())))

    def related(self) -> list[type[Model]]:
        """Return the other models that the listing reads, in any field or filter."""
        found = dict.fromkeys(self._read_models)
        for path in self.paths:
            found |= {path.field(self.model, name).model: None for name in path.filters}
        return [model for model in found if model not in lineage(self.model)]

    @cached_property
    def _read_models(self) -> list[type[Model]]:
        """The models that the listing's query reads, each as many times as it reads their table."""
        return models_of(self.rows.values_list(self.json).query)

    @cached_property
    def shows_others(self) -> bool:
        """Whether a row shows other rows of its own model, such as its parent."""
        return any(self._read_models.count(model) > 1 for model in lineage(self.model))

    @cached_property
    def form_digest(self) -> str:
        """A digest that changes with the form of the answers and with the parameters."""
        schemas = [
            self.schema.model_json_schema(),
            {name: known.schema for name, known in self.parameter_types.items()},
        ]
        known = orjson.dumps([self.name, self.fields, self.default_fields, schemas], default=str)
        return blake2b(known, digest_size=4).hexdigest()

    def _read(self, query_string: str) -> ListQuery:
        """Parse, check and compile a request. Raises Problem 422."""
        values = parameters.read(query_string, self.parameter_types)
        filters = {name: values[name] for name in self.filters if name in values}
        path = self.find_path(values.get("sort"), filters)
        sort: str = values.get("sort", path.sort)
        fields: tuple[str, ...] = values.get("fields", self.default_fields)
        layout: str = values.get("layout", LAYOUTS[0])
        limit: int = values.get("limit", self.default_limit)

        # The canonical query string.
        link = {name: self.filters[name].format(value) for name, value in filters.items()}
        continues = "&".join((self.name, sort, *(f"{name}={text}" for name, text in link.items())))
        if (
            sort != self.paths[0].sort or sort != self.find_path(None, filters).sort
        ):  # the filters alone may imply another sort
            link["sort"] = sort
        if limit != self.default_limit:
            link["limit"] = str(limit)
        if fields != self.default_fields:
            link["fields"] = ",".join(fields)
        if layout != LAYOUTS[0]:
            link["layout"] = layout

        cursor, key = None, {}
        if "cursor" in values:
            types = self.keys[path].values()
            try:
                cursor = cursors.unsign(values["cursor"], continues.encode())
                if cursor.key is not None and len(cursor.key) != len(types):  # made by an earlier release
                    raise Malformed("invalid_cursor", "is a cursor of this list as it was before")
                parts = zip(types, cursor.key or (), strict=False)
                key = {key_name(at): of.parse(part) for at, (of, part) in enumerate(parts)}
            except Malformed as error:
                fault = Fault(parameter="cursor", code=error.code, detail=str(error))
                raise Problem(422, f"cursor: {error}", code=error.code, errors=[fault]) from None
        descending = sort.startswith("-") != bool(cursor and cursor.before)
        if key:  # the cursor's key replaces the filters that only say where reading begins
            filters = {
                n: v for n, v in filters.items() if not path.filters[n].bounds_start(descending=descending)
            }

        shape = Shape(path, descending, bool(key), tuple(filters), fields, layout, limit)
        rows, shown = self.compile(shape)
        bound = rows.statement.bind(filters | key)
        return ListQuery(rows, bound, shown, limit, cursor, continues.encode(), urlencode(link, safe=",:"))

    def _compile(self, shape: Shape) -> tuple[Columns, Layout]:
        """Compile the query of a shape, in the order of reading, with one row more than the limit."""
        rows = self.select(shape.path, shape.filters, descending=shape.descending, resumed=shape.resumed)
        shown = self.keys[shape.path]
        layout = Layout(
            self.model, self.schema, shape.layout, shape.fields, shown, annotations=self.annotations
        )
        return Columns(rows, layout.columns, limit=shape.limit + 1), layout

    def select(
        self, path: AccessPath, filters: Collection[str], *, descending: bool, resumed: bool
    ) -> "QuerySet[Any]":
        """Return the rows in the order of a path. Each of `filters` compares with a Param of the filter's name.

        If `resumed`, only the rows beyond a sort key, of which the parts are the Params `key_name(0)` and so on.
        """
        rows = self.rows
        for name in filters:
            rows = rows.filter(path.condition(self.model, name, Param(name)))
        key = path.key(self.model)
        if resumed:
            beyond = TupleLessThan if descending else TupleGreaterThan
            rows = rows.filter(beyond(Tuple(*map(F, key)), tuple(map(Param, map(key_name, range(len(key)))))))
        return rows.order_by(*(F(name).desc() if descending else F(name).asc() for name in key))

    def find_path(self, sort: str | None, filters: Collection[str]) -> AccessPath:
        """Return the first path with all the filters, and with the sort unless it is None. Raises Problem 422."""
        for path in self.paths:
            if sort in (None, path.sort, "-" + path.sort) and path.filters.keys() >= set(filters):
                return path
        served = {
            name: f"is served with sort {' or '.join(f'[-]{sort}' for sort in self.sorts_of(name))}"
            for name in filters
        }
        if sort:
            served["sort"] = "serves other filters than these"
        raise Problem(
            422,
            "No index serves this sort and these filters together.",
            code="unsupported_combination",
            errors=[
                Fault(parameter=name, code="unsupported_combination", detail=detail)
                for name, detail in served.items()
            ],
            supported=[{"sort": [p.sort, "-" + p.sort], "filters": list(p.filters)} for p in self.paths],
        )


@dataclass(frozen=True, slots=True)
class Item:
    """One row of a listing as a resource: the path parameter `parameter` has its primary key."""

    cost: ClassVar[float] = 0.0
    listing: Listing
    parameter: str
    key_type: ParameterType

    async def respond(self, request: HttpRequest, key: Any) -> HttpResponse:
        """Return the row with the primary key `key`: the fields that the request names, by default all.

        Raises Http404, Problem 422, or psycopg.OperationalError, which Api answers with 503.
        """
        get_row = self.listing.compile_item(self._fields(parameters.string_of(request)))
        row = await get_row(key=self.parse(key))
        if row is None:
            raise Http404
        # For If-Match of a write. The page cache makes the same tag by itself.
        return HttpResponse(row, content_type="application/json", headers={"ETag": f'"{digest(row)}"'})

    def parse(self, key: Any) -> Any:
        """Return the primary key in a path. Raises Http404 if the column cannot hold it: 2**63 in a bigint, say."""
        try:
            return self.key_type.parse(key if isinstance(key, str) else self.key_type.format(key))
        except Malformed:
            raise Http404 from None

    @property
    def name(self) -> str:
        return f"{self.listing.name}.one"

    @property
    def depends_on(self) -> tuple[Dependency, ...]:
        own = Dependency(self.listing.model, "" if self.listing.shows_others else self.parameter)
        return own, *map(Dependency, self.listing.related())

    @property
    def parameters(self) -> Collection[str]:
        return self.listing.item_parameter_types

    @property
    def form_digest(self) -> str:
        return self.listing.form_digest

    def canonical_query(self, query: str) -> str:
        """Return the same query string for all requests with the same answer. Raises Problem 422."""
        fields = self._fields(query)
        return "" if fields == self.listing.fields else f"fields={','.join(fields)}"

    def _fields(self, query_string: str) -> tuple[str, ...]:
        values = parameters.read(query_string, self.listing.item_parameter_types)
        fields: tuple[str, ...] = values.get("fields", self.listing.fields)
        return fields


# Every listing of the service, for the system checks and for warming.
LISTINGS: list[Listing] = []


def key_name(at: int) -> str:
    """Return the name of the Param for part `at` of the sort key at which a query begins."""
    return f"key{at}"


def _fields(members: Members, default: Sequence[str]) -> ParameterType:
    """The type of the parameter `fields`: a comma-separated choice, read in the schema's order and without repeats.

    A member of an object is `category.slug`. All members of an object are read as the object itself.
    """
    known = [*_names(members)]

    def parse(text: str) -> tuple[str, ...]:
        asked = {*text.split(",")}
        if not asked <= {*known}:
            raise Malformed("not_a_choice", f"must be some of {','.join(known)}, separated by commas")
        return tuple(_chosen(members, asked))

    one = "|".join(known).replace(".", r"\.")
    schema = {"type": "string", "pattern": f"^({one})(,({one}))*$", "default": ",".join(default)}
    return ParameterType(parse, ",".join, schema)


def _names(members: Members, prefix: str = "") -> Iterator[str]:
    """Yield the names of all fields and members: `category`, `category.slug`."""
    for name, inner in members.items():
        yield prefix + name
        yield from _names(inner, f"{prefix}{name}.")


def _chosen(members: Members, asked: Collection[str], prefix: str = "") -> Iterator[str]:
    """Yield the names in `asked` in the schema's order, an object's name in place of all its members."""
    for name, inner in members.items():
        whole = prefix + name
        chosen = [*_chosen(inner, asked, f"{whole}.")]
        is_whole = whole in asked or (inner and chosen == [f"{whole}.{member}" for member in inner])
        yield from [whole] if is_whole else chosen
