"""Querysets compiled once, whose rows Postgres writes as JSON.

    get_product = One(Product.objects.filter(pk=Param("id")), ProductOut)

    await get_product(id=7)    # b'{"id":7,...}' or None

The ORM writes the SQL, the schema defines the JSON, and no Python touches a row: Postgres writes 100 rows as JSON in
40 us; Python would take 166 to decode them. A query that cannot work (a slice, many rows without an order, a field
that Postgres cannot write as the schema does) is refused at import. A listing compiles a choice of fields at the
first request for it.

A worker runs a compiled query on its native pool. Elsewhere, in a test, a command or a shell, the query runs on
Django's own connection, on any event loop: `asyncio.run(get_product(id=7))`.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, TypeAlias

from django.core.exceptions import EmptyResultSet, FieldDoesNotExist, FieldError, ImproperlyConfigured
from django.db import connection
from django.db.models import (
    DecimalField,
    Exists,
    Expression,
    F,
    ForeignKey,
    Func,
    IntegerField,
    JSONField,
    ManyToManyField,
    ManyToManyRel,
    ManyToOneRel,
    Model,
    OneToOneRel,
    OuterRef,
    QuerySet,
    Subquery,
    TextField,
)  # fmt: skip
from django.db.models.constants import LOOKUP_SEP
from django.db.models.expressions import BaseExpression, Col
from django.db.models.functions import Cast
from django.db.models.sql.compiler import SQLCompiler
from pydantic import BaseModel
from pydantic_core import to_json

from ops.postgres.json_sql import BARE, BOOLEAN, JsonSql, json_sql, target_of
from ops.postgres.nesting import Children, More, marker_of, refuse_conversions, schema_in
from ops.postgres.pool import fetch
from ops.postgres.statement import Statement

# Between rows. No JSON text holds a line feed: to_json escapes it.
SEPARATOR = b",\n"
# First characters, in SQL, of texts that may be formulas to a spreadsheet (OWASP, "CSV Injection"). The last four are
# full-width forms.
FORMULA_STARTS = r"'=', '+', '-', '@', E'\t', E'\r', E'\n', E'\uff1d', E'\uff0b', E'\uff0d', E'\uff20'"

MAX_NESTED_ROWS = 10_000  # rows that the JSON of one row may hold in all its lists: about a megabyte
# Rows that Postgres writes in a few milliseconds, those in lists among them. A query that may have more rows has a
# connection of its own, since other requests would wait for it.
MAX_QUICK_ROWS = 2000


class Column(NamedTuple):
    """A value in JSON text: an expression, or the ORM's path of a column; its writer; and whether it may be null."""

    source: Any
    json_sql: JsonSql
    nullable: bool = False


@dataclass(eq=False)
class Contents:
    """The related rows and the documents in the JSON of one row."""

    # tables of related rows, each with a path that leads there
    tables: dict[str, str] = field(default_factory=dict)
    rows: int = 1  # the most that the JSON may hold: the row itself and those in its lists
    # Whether there are documents. Postgres holds some that not every reader of JSON takes: 1e400, a thousand levels.
    has_documents: bool = False
    # For each list: the schema's field, the model of the rows that refer to this row, and their foreign key to it.
    lists: list[tuple[str, type[Model], str]] = field(default_factory=list)

    def add(self, path: str, *models: type[Model]) -> None:
        for model in models:
            self.tables.setdefault(model._meta.db_table, path)


class Json(Expression):
    """JSON text made of literal pieces and of columns, each written by its JsonSql."""

    def __init__(
        self, model: type[Model], pieces: Sequence[str], columns: Sequence[Column], contents: Contents
    ) -> None:
        """`pieces` go before, between and after the columns."""
        super().__init__(output_field=TextField())
        self.model = model
        self.pieces = pieces
        self.columns: list[Any] = [F(it) if isinstance(it, str) else it for it, _, _ in columns]
        self.writers = [(writer, nullable) for _, writer, nullable in columns]
        self.contents = contents
        self.has_ends = True

    @property
    def ends(self) -> tuple[str, str]:
        """The literal texts at both ends, which are the same in every row."""
        (first, first_null), (last, last_null) = self.writers[0], self.writers[-1]
        before, after = first.text("", nullable=first_null)[0], last.text("", nullable=last_null)[2]
        return self.pieces[0] + before, after + self.pieces[-1]

    def without_ends(self) -> "Json":
        """Return the same without the texts in `ends`, which are then part of a separator between rows."""
        inner = self.copy()
        inner.has_ends = False
        return inner

    def correlated(self) -> "Json":
        """Return the same without joins: a column of a related row becomes a subquery on the row itself.

        It is for the condition of an UPDATE or DELETE, which Postgres computes again after waiting for a lock, for
        the row as it is then. A condition on a join would not be computed again, since Django puts it in a subquery.
        """
        inner = self.copy()
        inner.columns = [_correlated(self.model, column) for column in self.columns]
        return inner

    def get_source_expressions(self) -> list[Any]:
        return self.columns

    def set_source_expressions(self, exprs: Sequence[Any]) -> None:
        self.columns = list(exprs)

    def as_sql(self, compiler: SQLCompiler, _connection: Any) -> tuple[str, Any]:
        parts, literal = [], ""
        bound: list[Any] = []
        for piece, column, (writer, nullable) in zip(self.pieces, self.columns, self.writers, strict=False):
            sql, parameters = compiler.compile(column)
            bound += parameters
            if isinstance(column, Col | Maybe) or writer.sql.count("{}") == 1:
                is_closed = isinstance(column, Col | Maybe | Subquery)
                before, text, after = writer.text(sql if is_closed else f"({sql})", nullable=nullable)
            else:
                before, text, after = writer.text(ONCE, nullable=nullable)
                text = once(text, sql)
            parts += [quote(literal + piece + before), text]
            literal = after
        if self.has_ends:
            parts.append(quote(literal + self.pieces[-1]))
        else:
            parts[:2] = [f"({parts[1]})::text"]
        return "(" + " || ".join(parts) + ")", bound


ONCE = "it.value"  # SQL of a value that `once` has computed once, even if it is used in several places


def once(text: str, sql: str) -> str:
    """Return SQL of `text`, in which ONCE is the value of `sql`. OFFSET keeps Postgres from repeating `sql`."""
    return f"(SELECT {text} FROM (SELECT {sql} OFFSET 0) AS it(value))"


class Maybe(Expression):
    """The JSON of a related row, or null if there is none.

    The JSON of the related row is NULL if a row to which it refers is missing. That would make the whole text NULL,
    so null is written then, too.
    """

    def __init__(self, key: F, json: Json) -> None:
        super().__init__(output_field=TextField())
        self.parts: list[Any] = [key, json]

    def get_source_expressions(self) -> list[Any]:
        return self.parts

    def set_source_expressions(self, exprs: Sequence[Any]) -> None:
        self.parts = [*exprs]

    def as_sql(self, compiler: SQLCompiler, _connection: Any) -> tuple[str, Any]:
        (key, none), (json, parameters) = map(compiler.compile, self.parts)
        return f"CASE WHEN {key} IS NULL THEN 'null' ELSE COALESCE({json}, 'null') END", [*none, *parameters]


class Referring(NamedTuple):
    """The rows in which the field `lookup` equals the value at the ORM's path `outer` of an outer row.

    One of the two fields is a foreign key.
    """

    rows: "QuerySet[Any]"
    lookup: str
    outer: str

    def found(self) -> "QuerySet[Any]":
        """Return the rows as a queryset for a subquery of the outer row's query."""
        return self.rows.filter(**{self.lookup: OuterRef(self.outer)})


class List(Subquery):
    """The JSON of the rows that refer to a row, as an array: `json` for each row, `limit` rows at most."""

    template = (
        "COALESCE((SELECT %(begin)s || string_agg(item, %(between)s) || %(end)s"
        " FROM (%(subquery)s) AS children(item)), '[]')"
    )

    def __init__(self, referring: Referring, json: Json, limit: int) -> None:
        before, after = json.ends
        texts = {"begin": f"[{before}", "between": f"{after},{before}", "end": f"{after}]"}
        rows = referring.found().values_list(json.without_ends())[:limit]
        super().__init__(rows, TextField(), **{name: quote(text) for name, text in texts.items()})
        self.referring, self.json, self.limit = referring, json, limit

    def seen_from(self, outer: str) -> "List":
        """Return the same for another outer row, from which `outer` is the path."""
        return List(self.referring._replace(outer=outer), self.json, self.limit)


class HasMore(Exists):
    """Whether more rows than `limit` refer to a row."""

    def __init__(self, referring: Referring, limit: int) -> None:
        super().__init__(referring.found().order_by()[limit:])
        self.referring, self.limit = referring, limit

    def seen_from(self, outer: str) -> "HasMore":
        """As List.seen_from."""
        return HasMore(self.referring._replace(outer=outer), self.limit)


class Found(Subquery):
    """The primary key of a related row; null if the row is missing, as it may be without a constraint."""

    def __init__(self, referring: Referring) -> None:
        super().__init__(referring.found().values("pk")[:1])
        self.referring = referring

    def seen_from(self, outer: str) -> "Found":
        """As List.seen_from."""
        return Found(self.referring._replace(outer=outer))


def _correlated(model: type[Model], column: Any) -> Any:
    """Return a column of the model's row, or of a related row, with subqueries in place of joins."""
    if isinstance(column, Json):
        return column.correlated()
    if isinstance(column, Maybe):
        return Maybe(*(_correlated(model, part) for part in column.parts))
    path = column.referring.outer if isinstance(column, List | HasMore | Found) else column.name
    name, _, rest = path.partition(LOOKUP_SEP)
    if not rest:
        return column
    relation: Any = model._meta.get_field(name)
    if relation.concrete:
        key = {relation.target_field.attname: OuterRef(relation.attname)}
    else:
        key = {relation.field.attname: OuterRef(relation.field.target_field.attname)}
    related: QuerySet[Any] = QuerySet(relation.related_model).filter(**key).order_by()
    return Subquery(related.values_list(rest if isinstance(column, F) else column.seen_from(rest))[:1])


def quote(text: str) -> str:
    """Return the literal of a text, for SQL with Django's placeholders: each percent sign is doubled."""
    return "'" + text.replace("'", "''").replace("%", "%%") + "'"


@dataclass(frozen=True)
class Place:
    """A row for which JSON is being compiled, and where it stands in the statement."""

    root: type[Model]  # the model from which the statement, or the subquery around the row, selects
    model: type[Model]  # of the row
    contents: Contents
    path: str = ""  # the ORM's path from the root to the row, with a separator at its end
    annotations: Mapping[str, Any] = field(default_factory=dict)
    within: tuple[type[BaseModel], ...] = ()  # the schemas around the row, outermost first
    rows: int = 1  # the most rows of this kind in one row of the outermost statement


def row(
    model: type[Model],
    schema: type[BaseModel],
    fields: Iterable[str],
    annotations: Mapping[str, Any] | None = None,
) -> Json:
    """Return the JSON of a row as an object of `fields`: `category` as a whole, or a member, as in `category.slug`.

    `annotations` are those of the queryset. Raises ImproperlyConfigured if Postgres cannot write the row.
    """
    place = Place(model, model, Contents(), annotations=annotations or {})
    return _json(place, _object(place, schema, fields))


def value(
    model: type[Model],
    schema: type[BaseModel],
    name: str,
    annotations: Mapping[str, Any] | None = None,
    members: Iterable[str] = (),
) -> Json:
    """Return the JSON of one field of a row. An object has the given `members`, or all if none are given."""
    place = Place(model, model, Contents(), annotations=annotations or {})
    return _json(place, _member(place, schema, name, [*members]))


class Cell(Json):
    """One field of a row as a cell of CSV: the text that JSON has for it, without JSON's quotes; NULL for null.

    An object, or a list, is written as its JSON.
    """

    def __init__(
        self,
        model: type[Model],
        schema: type[BaseModel],
        name: str,
        annotations: Mapping[str, Any] | None = None,
        members: Iterable[str] = (),
        *,
        is_inert: bool,
    ) -> None:
        """`is_inert`: a text that a spreadsheet would take for a formula gets a quote (') in front of it."""
        json = value(model, schema, name, annotations, members)
        super().__init__(json.model, json.pieces, (), json.contents)
        self.columns, self.writers = json.columns, json.writers
        self.is_inert = is_inert

    def as_sql(self, compiler: SQLCompiler, connection: Any) -> tuple[str, Any]:
        if any(self.pieces):
            return super().as_sql(compiler, connection)
        [column], [(writer, _)] = self.columns, self.writers
        sql, parameters = compiler.compile(column)
        is_column = isinstance(column, Col)
        text = writer.cell(sql if is_column else ONCE)
        if self.is_inert and writer.is_text:
            text = f"(CASE WHEN left({text}, 1) IN ({FORMULA_STARTS}) THEN '''' || {text} ELSE {text} END)"
        if not is_column:
            text = once(text, sql)
        return (f"NULLIF({text}, 'null')" if isinstance(column, Maybe) else text), parameters


def _json(place: Place, parts: Iterable[str | Column]) -> Json:
    pieces, columns = [""], []
    for part in parts:
        if isinstance(part, str):
            pieces[-1] += part
        else:
            columns.append(part)
            pieces.append("")
    return Json(place.root, pieces, columns, place.contents)


def _object(place: Place, schema: type[BaseModel], fields: Iterable[str]) -> Iterator[str | Column]:
    """Yield the texts and columns of a row as an object. Raises ImproperlyConfigured if Postgres cannot write it."""
    chosen = by_head(fields)
    if not chosen:
        raise ImproperlyConfigured(f"{schema.__name__}: a row needs a field.")
    if schema.model_computed_fields:
        computed = ", ".join(schema.model_computed_fields)
        raise ImproperlyConfigured(f"{schema.__name__}: Postgres cannot compute {computed}.")
    if schema.__pydantic_decorators__.model_serializers:
        raise ImproperlyConfigured(f"{schema.__name__}: Postgres cannot call its model_serializer.")
    if schema in place.within:
        raise ImproperlyConfigured(
            f"{schema.__name__} is within itself: each level needs a schema of its own."
        )
    yield "{"
    for at, (name, members) in enumerate(chosen.items()):
        yield ("," if at else "") + f"{to_json(name).decode()}:"
        yield from _member(place, schema, name, members)
    yield "}"


def by_head(fields: Iterable[str]) -> dict[str, list[str]]:
    """Return each field with its chosen members: for id and category.slug, {"id": [], "category": ["slug"]}."""
    found: dict[str, list[str]] = {}
    for name in fields:
        head, _, rest = name.partition(".")
        found.setdefault(head, [])
        if rest:
            found[head].append(rest)
    return found


def _member(
    place: Place, schema: type[BaseModel], name: str, members: Sequence[str]
) -> Iterator[str | Column]:
    """Yield the texts and columns of one field, of an object only `members`, or all if there are none."""
    path = path_of(schema, name)
    if schema.model_fields[name].exclude_if:
        raise ImproperlyConfigured(f"{schema.__name__}.{name}: Postgres cannot call its exclude_if.")
    if more := marker_of(schema, name, More):
        path_of(schema, more.of)
        listed = nested(place.model, schema, more.of, place.annotations)
        if listed is None or not listed.is_list or members:
            raise ImproperlyConfigured(f"{schema.__name__}.{name}: {more.of} is no list of related rows.")
        yield Column(HasMore(listed.referring(place.path, ()), listed.children.limit), BOOLEAN)
        return
    found = nested(place.model, schema, name, place.annotations)
    if found is None:
        if members:
            raise ImproperlyConfigured(f"{schema.__name__}.{name} has no members.")
        yield _column(place, schema, name, path)
        return
    refuse_conversions(schema, name)
    inner = replace(place, model=found.model, within=(*place.within, schema))
    fields = members or found.schema.model_fields
    if found.relation is None:
        yield from _object(inner, found.schema, fields)
        return
    place.contents.add(path, *found.between, found.model)
    inner = replace(inner, annotations={})
    if found.is_list:
        yield Column(_list(inner, found, fields, f"{schema.__name__}.{name}"), BARE)
        return
    inner = replace(inner, path=f"{place.path}{found.path}{LOOKUP_SEP}")
    parts = _object(inner, found.schema, fields)
    if found.is_nullable:
        key: Any = F(f"{inner.path}pk")
        if not getattr(found.relation, "db_constraint", True):
            rows: QuerySet[Any] = QuerySet(found.model).order_by()
            key = Found(Referring(rows, found.relation.target_field.attname, f"{place.path}{found.path}"))
        yield Column(Maybe(key, _json(inner, parts)), BARE)
    else:
        yield from parts


def _column(place: Place, schema: type[BaseModel], name: str, path: str) -> Column:
    """Return the Column of a field: a column of the row, or of a row to which it refers, or an annotation."""
    if path in place.annotations:
        annotation: Any = place.annotations[path]
        output: Any = annotation.output_field
        if _converts(annotation):
            raise ImproperlyConfigured(
                f"{schema.__name__}.{name}: the ORM converts it in Python: put a Cast around {annotation}."
            )
        source: Any = F(path)
        if isinstance(output, DecimalField):
            places: Any = output.decimal_places
            if places is None:
                raise ImproperlyConfigured(
                    f"{schema.__name__}.{name}: say its digits, "
                    "output_field=DecimalField(max_digits=..., decimal_places=...)."
                )
            rounded = f"round((%(expressions)s)::numeric, {places})"
            source = Func(source, template=rounded, output_field=output)
        elif isinstance(output, IntegerField):
            # The ORM cuts a fraction off by int(): EXTRACT, for example, gives the numeric 12.000000.
            source = Func(source, template="trunc((%(expressions)s)::numeric)", output_field=output)
        place.contents.has_documents |= isinstance(output, JSONField)
        return Column(source, json_sql(output, schema, name), nullable=True)
    *relations, last = path.split(LOOKUP_SEP)
    models, nullable = _follow(place.model, relations, path)
    place.contents.add(path, *models[1:])
    owner = models[-1]
    column = _field(owner, last)
    if column.many_to_many or (column.is_relation and last != getattr(column, "attname", None)):
        hint = f", or {column.attname}" if column.concrete and not column.many_to_many else ""
        raise ImproperlyConfigured(f"{owner.__name__}.{last} is a relation; name a field of it{hint}.")
    nullable = nullable or column.null or getattr(column, "generated", False)  # Postgres may compute NULL
    column = target_of(column)
    # The output field is that of a GeneratedField.
    place.contents.has_documents |= isinstance(getattr(column, "output_field", column), JSONField)
    return Column(f"{place.path}{path}", json_sql(column, schema, name), nullable)


def _converts(expression: Any) -> bool:
    """Whether the ORM converts the value in Python, such as TruncMonth's, to which it adds a time zone."""
    if isinstance(expression, Cast) or not isinstance(expression, BaseExpression):
        return False
    is_own = type(expression).convert_value is not BaseExpression.convert_value
    return is_own or any(map(_converts, expression.get_source_expressions()))


def _list(place: Place, found: "Nested", fields: Iterable[str], name: str) -> List:
    """Return the List of the rows of `found`, each an object of `fields`.

    `place` is the row that has the list, but with the model of the listed rows. Raises ImproperlyConfigured if one
    row may hold too many others.
    """
    children, contents = found.children, place.contents
    rows = place.rows * children.limit
    contents.rows += rows
    if contents.rows - 1 > MAX_NESTED_ROWS:
        raise ImproperlyConfigured(
            f"{name}: one row may hold {contents.rows - 1} others, and {MAX_NESTED_ROWS} is the most. "
            "Give its lists lower limits: Children(limit=...)."
        )
    try:
        referring = found.referring(place.path, children.order_by)
    except FieldError as error:
        raise ImproperlyConfigured(f"{name}: Children(order_by=...): {error}") from None
    contents.add(found.path, referring.rows.model)
    contents.lists.append((name, referring.rows.model, referring.lookup))
    inner = replace(place, root=referring.rows.model, path=found.prefix, rows=rows)
    return List(referring, _json(inner, _object(inner, found.schema, fields)), children.limit)


@dataclass(frozen=True)
class Nested:
    """A field of a schema that is an object, or a list of objects.

    | declared                        | the model has    | it is                              |
    | ------------------------------- | ---------------- | ---------------------------------- |
    | `category: CategoryOut`         | a single relation | the related row                   |
    | `lines: list[LineOut]`          | a relation to many | the related rows                 |
    | `rating: Rating`                | no such field    | a group of columns of the row itself |
    """

    schema: type[BaseModel]
    model: type[Model]  # the model with the fields of the schema
    relation: Any = None  # None for a group
    path: str = ""  # the ORM's path to the related rows
    between: tuple[type[Model], ...] = ()  # the models on that path, without its ends
    is_list: bool = False
    is_nullable: bool = False
    children: Children = field(default_factory=Children)

    @property
    def through(self) -> tuple[type[Model], str, str] | None:
        """The through model of a many-to-many relation, and the names of its two foreign keys.

        The first foreign key is to the row that has the list, the second to a listed row. None for another relation.
        """
        if isinstance(self.relation, ManyToManyField):
            ends = self.relation.m2m_field_name(), self.relation.m2m_reverse_field_name()
            return (self.relation.remote_field.through, *ends)  # type: ignore[return-value]
        if isinstance(self.relation, ManyToManyRel):
            ends = self.relation.field.m2m_reverse_field_name(), self.relation.field.m2m_field_name()
            return (self.relation.through, *ends)  # type: ignore[return-value]
        return None

    @property
    def prefix(self) -> str:
        """The ORM's path from rows of the through model to the listed rows; empty without a through model."""
        return f"{self.through[2]}{LOOKUP_SEP}" if self.through else ""

    def referring(self, path: str, order_by: Sequence[str]) -> Referring:
        """Return the rows that refer to the row at `path`.

        They have the order `order_by`, or else that of their model's Meta.
        """
        *relations, _ = self.path.split(LOOKUP_SEP)
        path += "".join(f"{relation}{LOOKUP_SEP}" for relation in relations)
        listed = self.model._default_manager.all()
        if self.through:
            between, own, other = self.through
            rows: QuerySet[Any] = QuerySet(between)
            if listed.query.where:
                rows = rows.filter(**{f"{other}__in": listed.order_by()})
            lookup, target = own, between._meta.get_field(own).target_field  # type: ignore[union-attr]
        else:
            rows, lookup = listed, self.relation.field.name
            target = self.relation.field.target_field
        order: list[Any] = [*(order_by or self.model._meta.ordering or ())]
        if not all(isinstance(each, str) for each in order):
            raise ImproperlyConfigured(
                f"{self.model.__name__} is ordered by an expression: say Children(order_by=...)."
            )
        if not {"pk", self.model._meta.pk.name} & {each.lstrip("-") for each in order}:
            # The primary key orders rows with equal values. Its direction is that of the last field, so that one
            # index can have this order.
            order.append("-pk" if order and order[-1].startswith("-") else "pk")
        order = [f"{'-' * each.startswith('-')}{self.prefix}{each.lstrip('-')}" for each in order]
        return Referring(rows.order_by(*order), lookup, f"{path}{target.attname}")


def nested(
    model: type[Model], schema: type[BaseModel], name: str, annotations: Iterable[str] = ()
) -> Nested | None:
    """Return the object or the list that a schema's field is, or None for a field with one column.

    Raises ImproperlyConfigured for a type that does not fit the model's relation.
    """
    found = schema_in(schema, name)
    path = path_of(schema, name)
    if found is None or path in annotations:
        return None
    *relations, last = path.split(LOOKUP_SEP)
    models, nullable = _follow(model, relations, path)
    owner = models[-1]
    where = f"{schema.__name__}.{name}"
    relation = _attribute(owner, last)
    if relation is None:
        if relations or found.is_list:
            raise ImproperlyConfigured(f"{where}: {owner.__name__} has no relation {last}.")
        if found.may_be_null:
            raise ImproperlyConfigured(
                f"{where}: {owner.__name__} has no relation {last}, and a group of its own columns is never null."
            )
        return Nested(found.schema, model)
    if not relation.is_relation:
        return None  # a document in a column
    if not isinstance(relation, ForeignKey | ManyToManyField | ManyToOneRel | ManyToManyRel):
        raise ImproperlyConfigured(f"{where}: Postgres cannot follow {relation}.")
    is_list = not (relation.many_to_one or relation.one_to_one)
    if is_list != found.is_list:
        rows = "many rows: declare a list of the schema" if is_list else "one row: declare the schema itself"
        raise ImproperlyConfigured(f"{where}: {owner.__name__}.{last} is {rows}.")
    nullable = not is_list and (nullable or isinstance(relation, OneToOneRel) or relation.null)
    if nullable and not found.may_be_null:
        raise ImproperlyConfigured(
            f"{where}: {owner.__name__}.{last} may be null, and the schema says it is not."
        )
    path = LOOKUP_SEP.join((*relations, relation.name))
    children = marker_of(schema, name, Children) or Children()
    related: type[Model] = relation.related_model
    return Nested(found.schema, related, relation, path, (*models[1:],), is_list, nullable, children)


Members: TypeAlias = dict[str, "Members"]


def members_of(
    model: type[Model], schema: type[BaseModel], annotations: Mapping[str, Any] | None = None
) -> Members:
    """Return the fields of a schema, each with the members of its object or of its list's objects.

    A column has no members.
    """
    found: Members = {}
    for name in schema.model_fields:
        inner = nested(model, schema, name, annotations or {})
        own = annotations if inner and inner.relation is None else None
        found[name] = members_of(inner.model, inner.schema, own) if inner else {}
    return found


def _attribute(model: type[Model], name: str) -> Any:
    """The field or the relation that an instance of the model has as this attribute."""
    for relation in model._meta.related_objects:
        if relation.get_accessor_name() == name:
            return relation
    try:
        found: Any = model._meta.get_field(name)
    except FieldDoesNotExist:
        return None
    return None if found.auto_created and not found.concrete else found


def _follow(model: type[Model], relations: Iterable[str], path: str) -> tuple[list[type[Model]], bool]:
    """Return the model and those to which the `relations` lead, each to one row, and whether a key may be null.

    `path` is for the message. Raises ImproperlyConfigured for another relation, or for none.
    """
    models, nullable = [model], False
    for name in relations:
        relation = _field(models[-1], name)
        if not (relation.one_to_one or relation.many_to_one) or not relation.related_model:
            raise ImproperlyConfigured(f"{model.__name__}.{path}: only single related rows can be followed.")
        nullable = nullable or relation.null
        models.append(relation.related_model)
    return models, nullable


def path_of(schema: type[BaseModel], name: str) -> str:
    """The ORM path of a schema's field: an alias `category.slug` goes through the relation."""
    if name not in schema.model_fields:
        raise ImproperlyConfigured(f"{schema.__name__} has no field {name}.")
    return (schema.model_fields[name].alias or name).replace(".", LOOKUP_SEP)


def _field(model: type[Model], name: str) -> Any:
    try:
        return model._meta.get_field(name)
    except FieldDoesNotExist:
        raise ImproperlyConfigured(f"{model.__name__} has no field {name}.") from None


class One:
    """A compiled query for one row as an object: call it with the parameters, get its JSON, or None."""

    def __init__(
        self,
        queryset: "QuerySet[Any]",
        schema: type[BaseModel],
        fields: Iterable[str] | None = None,
        *,
        quick: bool = True,
    ) -> None:
        """`quick` is False for a query that may take Postgres more than a few milliseconds (Statement).

        If one row may hold more than MAX_QUICK_ROWS rows, the query is not quick in any case.
        """
        names = schema.model_fields if fields is None else fields
        if not queryset.query.order_by:
            queryset = queryset.order_by()  # the model's own order is for many rows
        json = row(queryset.model, schema, names, queryset.query.annotations)
        sql, parameters = compile_queryset(queryset, [json])
        quick = quick and json.contents.rows <= MAX_QUICK_ROWS
        self.statement = Statement(f"{sql} LIMIT 1", parameters, quick=quick, flush=not quick)

    async def __call__(self, **values: Any) -> bytes | None:
        result = await fetch(self.statement, self.statement.bind(values))
        return result.get_value(0, 0) if result.ntuples else None


class Columns:
    """A compiled query for an ordered set of rows: one text for each column, its values joined by SEPARATOR.

    Postgres also joins the values: for 100 rows that takes it 73 us, where sending each value takes 80, and it saves
    Python 6 us. The literal texts at the ends of a column's values are part of the separator, which saves two `||`
    for each value: a twentieth of the statement's time in the layout of rows, a tenth in that of columns.
    """

    def __init__(self, queryset: "QuerySet[Any]", columns: Sequence[Json], *, limit: int) -> None:
        """Up to `limit` rows. Raises ImproperlyConfigured for a queryset without an order, or a limit below 1."""
        if not queryset.ordered:
            raise ImproperlyConfigured("A compiled queryset of many rows needs an order.")
        if limit < 1:
            raise ImproperlyConfigured(f"The limit must be at least 1, not {limit}.")
        sql, parameters = compile_queryset(queryset, [column.without_ends() for column in columns])
        names = [f"c{number}" for number in range(len(columns))]
        joined = [joined_sql(name, column) for name, column in zip(names, columns, strict=True)]
        # The limit is a literal: for an unknown one, Postgres would plan to read a tenth of the table.
        page = f"({sql} LIMIT {limit:d}) AS page({', '.join(names)})"
        rows = limit * (1 + sum(column.contents.rows - 1 for column in columns))
        sql = f"SELECT {', '.join(joined)}, count(*) FROM {page}"
        self.statement = Statement(sql, parameters, quick=rows <= MAX_QUICK_ROWS)
        self.width = len(columns)

    async def fetch(self, parameters: Sequence[bytes | None]) -> tuple[list[bytes], int]:
        """Return the text of each column, empty if there are no rows, and the number of rows.

        `parameters` come from `statement.bind`. Counting in the database is free; counting the separators of
        100 rows takes 12 us.
        """
        result = await fetch(self.statement, parameters)
        value = result.get_value
        return [value(0, number) or b"" for number in range(self.width)], int(value(0, self.width) or 0)


def joined_sql(name: str, column: Json, order: str = "") -> str:
    """Return SQL that joins the values of `column` to one text, which is NULL if there are no rows.

    `name` is the SQL column with the values, which lack the texts in `ends`. `order` goes into string_agg().
    """
    before, after = column.ends
    text = f"string_agg({name}, {quote(after + SEPARATOR.decode() + before)}{order})"
    return f"{quote(before)} || {text} || {quote(after)}" if before or after else text


def compile_queryset(queryset: "QuerySet[Any]", columns: Sequence[Json | str]) -> tuple[str, tuple[Any, ...]]:
    """Return the SQL of the columns, with Django's placeholders and without a limit, and its parameters."""
    if queryset.query.is_sliced:
        raise ImproperlyConfigured("A compiled queryset cannot be a slice.")
    try:
        sql, parameters = queryset.values_list(*columns).query.get_compiler(connection=connection).as_sql()
    except EmptyResultSet:
        raise ImproperlyConfigured("A compiled queryset that never has a row.") from None
    return sql, tuple(parameters)
