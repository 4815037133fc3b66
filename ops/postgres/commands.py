"""Inserts, updates and deletes compiled once, which answer the row as JSON: the counterpart of compiled queries.

    create = Insert(Product, ProductOut, defaults={"time_created": Now()})
    change = Update(Product.objects.filter(pk=Param("id")), ProductOut)
    remove = Delete(Product.objects.filter(pk=Param("id")), ProductOut)

    row = await create(low_price=Decimal("1.50"), ..., category="garden")   # Row(json=b'{"id":7,...}', key="7")
    row = await change(id=7, low_price=Decimal("2"))                        # all other fields stay
    row = await change(id=7, sold_qty=1, seen=digest(row.json))             # if no other writer was faster
    await remove(id=7)

The ORM's compilers of inserts, updates and deletes write the SQL, and the schema defines the JSON, as in
ops/postgres/compiled.py: a command's row is the same bytes as a query's. A command is one statement in one round
trip, and a transaction of its own unless one is under way. The value of a field with an alias `category.slug` names
the related row.

An update has one statement for all choices of fields: `SET a = CASE WHEN $1 THEN $2 ELSE a END`. With eight fields
this takes Postgres a tenth more time than a statement that sets only one given field, but spares compiling and
preparing 255 statements. A column that is set to its own value is unchanged to Postgres, and alone causes no write to
an index.

A command that cannot work is refused when it is declared. No command calls save(), signals or validators.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from types import SimpleNamespace
from typing import Any, Generic, NamedTuple, TypeVar, cast

from django.core.exceptions import FieldDoesNotExist, ImproperlyConfigured
from django.db import DEFAULT_DB_ALIAS, connection
from django.db.models import (
    DO_NOTHING,
    PROTECT,
    RESTRICT,
    BooleanField,
    DateField,
    DateTimeField,
    Exists,
    Expression,
    F,
    Func,
    JSONField,
    Model,
    Q,
    QuerySet,
    Subquery,
    TextField,
)  # fmt: skip
from django.db.models.constants import LOOKUP_SEP
from django.db.models.functions import Cast, Now, StrIndex, TruncDate
from django.db.models.lookups import GreaterThan, IsNull
from django.db.models.sql import DeleteQuery, InsertQuery, Query, UpdateQuery
from django.db.models.sql.compiler import SQLCompiler, SQLInsertCompiler
from django.db.models.sql.constants import INNER
from psycopg import OperationalError
from psycopg.pq.abc import PGresult
from psycopg_pool import PoolClosed, PoolTimeout, TooManyRequests
from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from ops.postgres.compiled import Json, One, nested, path_of, row
from ops.postgres.connection import OutcomeUnknown, is_lost
from ops.postgres.digests import Digest
from ops.postgres.json_sql import target_of
from ops.postgres.pool import current, fetch
from ops.postgres.statement import Param, Statement
from ops.postgres.transactions import IMMEDIATE

Compiled = tuple[str, tuple[Any, ...]]  # SQL with Django's placeholders, and its parameters

SEEN = "seen"  # the parameter for the digests of the row that the client has seen
GIVEN = "given:"  # before a field's name: the parameter that tells whether the caller gives the field a value
# Rules of on_delete by which Postgres itself refuses the delete, if the foreign key has a constraint. Django emulates
# other rules row by row.
KEPT_BY_CONSTRAINT = frozenset((PROTECT, RESTRICT))
# Methods by which a field may convert the value that it is given.
CONVERSIONS = ("pre_save", "get_prep_value", "get_db_prep_value", "get_db_prep_save")
NOT_SENT = (PoolClosed, PoolTimeout, TooManyRequests)  # no connection: nothing was sent


class NotWritten(Exception):
    """Nothing was changed, for a reason in the attributes; or a row was written, and then deleted by another writer.

    `is_missing`: there is no row to change, or none any more. `unknown`: these fields have values that name no
    related row. `items`, for a command of many rows: the number of each item at fault, from 0, and its field with a
    value that names no row. If none is set, the row differs from the one that the client has seen.
    """

    def __init__(
        self,
        *,
        is_missing: bool = False,
        unknown: Sequence[str] = (),
        items: Sequence[tuple[int, str]] = (),
    ) -> None:
        reason = "the row is missing" if is_missing else "the row has changed"
        named = [*unknown, *(f"item {at} {name}".strip() for at, name in items)]
        super().__init__(f"no row for {', '.join(named)}" if named else reason)
        self.is_missing, self.unknown, self.items = is_missing, unknown, items


class Row(NamedTuple):
    """The row that was written, or deleted: its JSON, and its primary key as Postgres prints it.

    The JSON of a deleted row is empty if the DELETE waited for a writer that gave the row a new related row.
    """

    json: bytes
    key: str

    @property
    def keys(self) -> list[str]:
        return [self.key]


class Rows(NamedTuple):
    """The rows that were written, or deleted: their JSON as an array, and their keys as Postgres prints them."""

    json: bytes
    keys: list[str]


Values = TypeVar("Values")
Written = TypeVar("Written", bound=Row | Rows)


@dataclass(frozen=True, slots=True)
class Column:
    """A field that a command fills, mostly one of the schema."""

    name: str
    field: Any  # of the model
    related: Any = None  # of a relation, the related model's unique field by which a value names a row

    def value(self) -> Expression:
        """The value of the column, from the parameter `name`."""
        if not self.related:
            return Param(self.name, self.field)
        found: Any = Subquery(self.named().values(self.field.target_field.attname)[:1])
        return found  # type: ignore[no-any-return]

    def named(self) -> "QuerySet[Any]":
        """The related row that the parameter names."""
        names = {self.related.name: Param(self.name, self.related)}
        return QuerySet(self.related.model).filter(**names).order_by()

    def is_unknown(self) -> Q:
        """Whether the parameter names a related row that is not there."""
        return Q(IsNull(Cast(Param(self.name), TextField()), False)) & ~Q(Exists(self.named()))  # noqa: FBT003

    def prepare(self, value: Any) -> Any:
        """Return a value that psycopg can write: for a document, its JSON; any other value as it is.

        A document may hold values of a schema that the column's encoder does not know. They become JSON as pydantic
        prints them.
        """
        if isinstance(self.field, JSONField) and value is not None:
            encoder = self.field.encoder or json.JSONEncoder

            def plain(value: Any) -> Any:
                try:
                    return encoder().default(value)
                except TypeError:
                    return to_jsonable_python(value)

            try:
                return json.dumps(value, cls=encoder, default=plain, ensure_ascii=False)
            except TypeError:  # keys that are no texts, such as dates
                return json.dumps(to_jsonable_python(value), cls=encoder, ensure_ascii=False)
        return value


class IfGiven(Expression):
    """The value of a field, if the caller gives it one, or else another expression."""

    def __init__(self, given: Expression, value: Expression, otherwise: Any) -> None:
        """`given` tells whether the caller gives a value."""
        super().__init__(output_field=TextField())  # nothing reads this type
        self.parts = [given, value, otherwise]

    def get_source_expressions(self) -> list[Any]:
        return self.parts

    def set_source_expressions(self, exprs: Sequence[Any]) -> None:
        self.parts = [*exprs]

    def as_sql(self, compiler: SQLCompiler, _connection: Any) -> tuple[str, Any]:
        compiled = [compiler.compile(part) for part in self.parts]
        given, value, otherwise = (sql for sql, _ in compiled)
        sql = f"CASE WHEN {given}::boolean THEN {value} ELSE {otherwise} END"
        return sql, [parameter for _, parameters in compiled for parameter in parameters]


def columns_of(model: type[Model], schema: type[BaseModel]) -> dict[str, Column]:
    """Return the columns that a command can fill, by the names of the schema's fields.

    These are left out: a primary key that Postgres or a default makes, generated fields, fields of related rows that
    are not unique, objects and lists.
    """
    found: dict[str, Column] = {}
    for name in schema.model_fields:
        if nested(model, schema, name):
            continue
        first, *rest = path_of(schema, name).split(LOOKUP_SEP)
        field: Any = _concrete(model, first)
        if field is None or field.generated or len(rest) > 1:
            continue
        if rest:
            related = _concrete(field.related_model, rest[0]) if field.related_model else None
            if related is not None and related.unique and not related.is_relation:
                found[name] = Column(name, field, related)
        elif not field.primary_key or not (_is_automatic(field) or field.has_default()):
            found[name] = Column(name, field)
    return found


def _concrete(model: type[Model], name: str) -> Any:
    """Return the model's field with a column of its own, or None. `name` may be pk."""
    try:
        field: Any = model._meta.pk if name == "pk" else model._meta.get_field(name)
    except FieldDoesNotExist:
        return None
    return field if field.concrete and not field.many_to_many else None


def _is_automatic(field: Any) -> bool:
    return field.get_internal_type() in ("AutoField", "BigAutoField", "SmallAutoField")


def plain_type(field: Any) -> str:
    """Return the SQL type of a field's values, without a length or a precision.

    A cast to a type with a length would cut a longer value, which the column itself refuses.
    """
    plain = re.sub(r"\(.*?\)", "", target_of(field).rel_db_type(connection))
    # These names mean a length of 1 where no length follows.
    return {"char": "bpchar", "character": "bpchar", "bit": "bit varying"}.get(plain, plain)


class Command(Generic[Values, Written]):
    """One compiled statement that changes rows."""

    model: type[Model]
    statement: Statement
    columns: dict[str, Column]  # by the name of the parameter

    def bind(self, values: Values) -> tuple[Statement, list[bytes | None]]:
        """The statement with its parameters. Raises TypeError for a name that is missing or unknown."""
        raise NotImplementedError

    def read(self, result: PGresult, values: Values) -> Written:
        """Return the written row or rows, from the result for the parameters `values`. Raises NotWritten."""
        raise NotImplementedError

    async def complete(self, written: Written) -> Written:
        """Return `written` with its JSON, which is read now if the statement could not see it (`read_written`)."""
        raise NotImplementedError

    async def run(self, values: Values) -> Written:
        """Run the command as a call does, with the parameters in one object."""
        return await self.complete(await self.write(values))

    async def write(self, values: Values) -> Written:
        """Run the statement, and return the written row or rows. Their JSON may be empty: `complete` reads it."""
        try:
            result = await fetch(*self.bind(values))
        except NOT_SENT:
            raise
        except OperationalError as error:
            # In a transaction the outcome is known: without a COMMIT nothing is written.
            if current.get() is None and is_lost(error):
                raise OutcomeUnknown(str(error)) from error
            raise
        return self.read(result, values)


class RowCommand(Command[Mapping[str, Any], Row]):
    """A command that changes one row at most. Call it with the parameters."""

    # fields that a call may leave out: the statement then has another value for the column
    optional: frozenset[str]
    naming_rows: tuple[str, ...]  # fields that name a related row
    by_key: "RowByKey | None" = None  # reads the row afterwards; None for Delete
    required: frozenset[str] = frozenset()  # fields that a new row must be given
    compares = True  # whether there must be a row already, which may be missing, or not as it was seen
    comparing: Statement  # for calls with `seen`; the digest takes Postgres a tenth of a change's time

    async def __call__(self, **values: Any) -> Row:
        """Change the row. Raises NotWritten, OutcomeUnknown, psycopg's errors, TypeError for unknown parameters."""
        return await self.run(values)

    def bind(self, values: Mapping[str, Any]) -> tuple[Statement, list[bytes | None]]:
        columns = self.columns
        bound = dict.fromkeys(self.optional) | {
            name: columns[name].prepare(value) if name in columns else value for name, value in values.items()
        }
        for name in self.optional:
            bound[GIVEN + name] = name in values
        statement = self.statement
        if self.compares:
            if bound.get(SEEN) is None:
                bound.pop(SEEN, None)
            else:
                statement = self.comparing
        return statement, statement.bind(bound)

    def read(self, result: PGresult, values: Mapping[str, Any]) -> Row:
        if (key := result.get_value(0, 1) if result.ntuples else None) is not None:
            is_whole = result.get_value(0, 2) == b"t"
            return Row((is_whole and result.get_value(0, 0)) or b"", key.decode())
        reasons = (
            [result.get_value(0, at) == b"t" for at in range(3, result.nfields)] if result.ntuples else []
        )
        is_missing = bool(reasons) and self.compares and reasons.pop(0)
        unknown = [name for name, is_unknown in zip(self.naming_rows, reasons, strict=True) if is_unknown]
        if self.compares and values.get(SEEN) is None and not unknown:
            is_missing = True  # the row was there as the statement began; another writer has deleted it since
        raise NotWritten(is_missing=is_missing, unknown=() if is_missing else unknown)

    async def complete(self, written: Row) -> Row:
        """Return the row. JSON that is empty is read by key, unless the command has deleted the row.

        Raises NotWritten if another writer has deleted it since.
        """
        if written.json or not self.by_key:
            return written
        return Row(await self.by_key.read(written.key), written.key)

    def _complete(self, changed: Compiled, answer: Json, reasons: Sequence[Any]) -> Statement:
        """Return the whole statement for a change.

        Its one result row has the changed row's JSON and key, and whether that is whole; or, if nothing was changed,
        a boolean for each of the `reasons`.

        The reasons are conditions; Postgres computes them only if nothing is changed. They stand before the change,
        where the name of the table still means the table. After it, this name means the changed rows, so the rest of
        the statement is the ORM's own SQL for reading the table.
        """
        written = written_as(self.model)
        refuse_own_table(self.model, answer)
        read, read_parameters = read_written(self.model, [answer, "pk"], are_gone=not self.by_key)
        sql, parameters = changed
        compiled = [sql_of(self.model, reason) for reason in reasons]
        names = ", ".join(f"c{at}" for at in range(len(compiled)))
        before = ""
        if compiled:
            before = f'"not written"({names}) AS (SELECT {", ".join(text for text, _ in compiled)}), '
        nulls = ", NULL::boolean" * len(compiled)
        after = f"SELECT json::text, key::text, is_whole{nulls} FROM ({read}) AS written(json, key, is_whole)"
        if compiled:
            after += f' UNION ALL SELECT NULL, NULL, NULL, {names} FROM "not written"'
            after += f" WHERE NOT EXISTS (SELECT FROM {written})"
        bound = (*(p for _, more in compiled for p in more), *parameters, *read_parameters)
        return Statement(f"WITH {before}{written} AS ({sql} RETURNING *) {after}", bound, repeatable=False)


class Insert(RowCommand):
    """Inserts one row. `fields` of the schema are those that callers fill: by default all but auto_now, auto_now_add.

    `defaults` are for fields that a caller may leave out, or that the schema lacks. They are values, expressions, or
    functions, which are called for each row. They override the model's own defaults.
    """

    compares = False

    def __init__(
        self,
        model: type[Model],
        schema: type[BaseModel],
        fields: Iterable[str] | None = None,
        *,
        defaults: Mapping[str, Any] | None = None,
    ) -> None:
        _refuse_parents(model)
        self.model, self.columns = model, _choose(model, schema, fields)
        self.by_key = RowByKey(model, schema)
        self.defaults = defaults or {}
        self.sources = _sources(model, self.defaults)
        column_of = {column.field: column for column in self.columns.values()}
        self.python_defaults: dict[
            str, Callable[[], Any]
        ] = {}  # for a column with nulls they may return None
        for field, source in self.sources.items():
            column = column_of.get(field)
            if isinstance(source, Expression):
                continue
            if column is None:
                if source is None:
                    raise ImproperlyConfigured(
                        f"{model.__name__}.{field.name}: Postgres cannot fill it. Name it, or give it a default."
                    )
                column = self.columns[field.attname] = Column(field.attname, field)
            if source:
                self.python_defaults[column.name] = source
            if column.related and field.has_default() and source == field.get_default:
                raise ImproperlyConfigured(f"{field}: its default is a key, but {column.name} takes none.")
        self.optional = frozenset(
            name
            for name, column in self.columns.items()
            if isinstance(self.sources[column.field], Expression)
        )
        related = [column for column in self.columns.values() if column.related]
        self.naming_rows = tuple(column.name for column in related)
        self.required = frozenset(self.columns) - self.optional - self.python_defaults.keys()

        sql, parameters = insertion(model, self.values(Column.value, _is_given))
        if related:
            head, values = split_values(model, sql)
            condition, more = sql_of(model, ~_any(column.is_unknown() for column in related))
            sql, parameters = f"{head} SELECT {values} WHERE {condition}", (*parameters, *more)
        reasons = [column.is_unknown() for column in related]
        self.statement = self._complete((sql, parameters), row(model, schema, schema.model_fields), reasons)

    def values(
        self, value: Callable[[Column], Expression], given: Callable[[str], Expression]
    ) -> dict[Any, Expression]:
        """Return an expression for each field of the new row.

        `value` makes the expression of a column's value, `given` the one for whether the caller gives the field.
        """
        column_of = {column.field: column for column in self.columns.values()}
        found = {}
        for field, source in self.sources.items():
            column = column_of.get(field)
            if not column:
                found[field] = source
            elif isinstance(source, Expression):
                # Without the CAST, a default of 0 would make Postgres take the parameter for an integer.
                typed = Func(source, template=f"CAST(%(expressions)s AS {plain_type(field)})")
                found[field] = IfGiven(given(column.name), value(column), typed)
            else:
                found[field] = value(column)
        return found

    def bind(self, values: Mapping[str, Any]) -> tuple[Statement, list[bytes | None]]:
        missing = {name: default() for name, default in self.python_defaults.items() if name not in values}
        return super().bind({**values, **missing})


class Update(RowCommand):
    """Changes the given fields of the one row that a queryset finds; all others stay.

    The parameter `seen`, digests joined by commas, is optional: the row then changes only if its digest is one of
    them. No other writer can come between the comparison and the change: Postgres compares again once it has the
    row's lock (READ COMMITTED, its default).
    """

    def __init__(
        self, rows: "QuerySet[Any]", schema: type[BaseModel], fields: Iterable[str] | None = None
    ) -> None:
        self.model = model = rows.model
        _refuse_parents(model)
        rows, self.by_key = rows_of_table(rows), RowByKey(model, schema)
        self.columns = {
            name: column
            for name, column in _choose(model, schema, fields).items()
            if not column.field.primary_key
        }
        if not self.columns or SEEN in self.columns:
            raise ImproperlyConfigured(f"{schema.__name__}: an update needs a field, and none named {SEEN}.")
        self.optional = frozenset(self.columns)
        related = [column for column in self.columns.values() if column.related]
        self.naming_rows = tuple(column.name for column in related)
        unknown = [Q(Cast(Param(GIVEN + c.name), BooleanField())) & c.is_unknown() for c in related]

        values = self.values(Column.value, _is_given)
        answer = row(model, schema, schema.model_fields)

        def compiled(found: "QuerySet[Any]") -> Statement:
            query: Any = (found.filter(~_any(unknown)) if unknown else found).query.chain(UpdateQuery)
            query.add_update_fields(values)
            query.clear_ordering(force=True)
            changed = query.get_compiler(connection=connection).as_sql()
            return self._complete(changed, answer, [~Q(Exists(rows.order_by())), *unknown])

        self.statement, self.comparing = compiled(rows), compiled(_seen(rows, answer))

    def values(
        self, value: Callable[[Column], Expression], given: Callable[[str], Expression]
    ) -> list[tuple[Any, None, Expression]]:
        """Return the fields and their expressions for UpdateQuery. `value` and `given` are as in Insert.values."""
        filled = {column.field for column in self.columns.values()}
        return [
            (column.field, None, IfGiven(given(name), value(column), F(column.field.attname)))
            for name, column in self.columns.items()
        ] + [
            (field, None, _now(field))
            for field in self.model._meta.concrete_fields
            if getattr(field, "auto_now", False) and field not in filled
        ]  # fmt: skip


class Delete(RowCommand):
    """Deletes the one row that a queryset finds. The parameter `seen` is as in Update.

    Raises ImproperlyConfigured if the ORM would change or delete related rows, one by one.
    """

    naming_rows = ()

    def __init__(self, rows: "QuerySet[Any]", schema: type[BaseModel]) -> None:
        self.model = model = rows.model
        _refuse_parents(model)
        for relation in model._meta.get_fields(include_hidden=True):
            rule = getattr(relation, "on_delete", None)
            if relation.concrete or not relation.auto_created or rule in (None, DO_NOTHING):
                continue
            has_constraint = getattr(relation.field, "db_constraint", False)
            # Rules with on_delete_sql (Django 6.1) are carried out by the database itself.
            if not (has_constraint if rule in KEPT_BY_CONSTRAINT else getattr(rule, "on_delete_sql", None)):
                without = "" if has_constraint else " without a constraint"
                raise ImproperlyConfigured(
                    f"{model.__name__}: {rule.__name__} of {relation.related_model.__name__}{without} is the ORM's "
                    "own work: delete such rows by the ORM."
                )
        if any(hasattr(field, "bulk_related_objects") for field in model._meta.private_fields):
            raise ImproperlyConfigured(f"{model.__name__}: the ORM deletes its generic relations: use it.")
        self.columns, self.optional = {}, frozenset()
        rows = rows_of_table(rows)
        answer = row(model, schema, schema.model_fields)

        def compiled(found: "QuerySet[Any]") -> Statement:
            query: Any = found.query.chain(DeleteQuery)
            query.clear_ordering(force=True)
            deleted = query.get_compiler(connection=connection).as_sql()
            return self._complete(deleted, answer, [~Q(Exists(rows.order_by()))])

        self.statement, self.comparing = compiled(rows), compiled(_seen(rows, answer))


def _sources(model: type[Model], defaults: Mapping[str, Any]) -> dict[Any, Any]:
    """Return, for each field of a new row, the source of its value if the caller gives none.

    A source is an expression, a Python function, or None if there is no value. Generated columns and automatic keys
    are left out.
    """
    found: dict[Any, Any] = {}
    unused = {*defaults}
    for field in model._meta.concrete_fields:
        name = next((name for name in (field.name, field.attname) if name in defaults), "")
        unused.discard(name)
        if name:
            value = defaults[name]
            found[field] = (
                value if isinstance(value, Expression) or callable(value) else partial(_same, value)
            )
        elif field.generated or _is_automatic(field):
            continue
        elif _is_timed(field):
            found[field] = _now(field)
        elif field.has_db_default():
            found[field] = cast("Any", field)._db_default_expression  # noqa: SLF001  it has no public name
        else:
            found[field] = field.get_default if field.has_default() or field.null else None
    if unused:
        raise ImproperlyConfigured(f"{model.__name__} has no field {', '.join(unused)} to give a default.")
    return found


def _is_timed(field: Any) -> bool:
    """Whether the field has the time of a write (auto_now_add, auto_now), which clients normally do not give."""
    return getattr(field, "auto_now_add", False) or getattr(field, "auto_now", False)


def _now(field: Any) -> Expression:
    if isinstance(field, DateTimeField):
        return Now()
    if isinstance(field, DateField):
        return TruncDate(Now())
    raise ImproperlyConfigured(f"{field}: a command has no auto_now of a {type(field).__name__}.")


def _same(value: Any) -> Any:
    return value


def _choose(model: type[Model], schema: type[BaseModel], fields: Iterable[str] | None) -> dict[str, Column]:
    """Return the columns of `fields`; for None, of all that can be filled but auto_now and auto_now_add.

    Raises ImproperlyConfigured for a field that a command cannot fill, and for two fields of one column.
    """
    known = columns_of(model, schema)
    if wrong := [name for name in fields or () if name not in known]:
        raise ImproperlyConfigured(f"{schema.__name__}: a command cannot fill {', '.join(wrong)}.")
    if fields is None:
        fields = [name for name, column in known.items() if not _is_timed(column.field)]
    chosen = {name: known[name] for name in fields}
    filled: set[Any] = set()
    for name, column in chosen.items():
        if column.field in filled:
            raise ImproperlyConfigured(f"{schema.__name__}: {name} and another field fill {column.field}.")
        filled.add(column.field)
        for method in CONVERSIONS:
            if not getattr(type(column.field), method).__module__.startswith(
                ("django.db.", "django.contrib.")
            ):
                raise ImproperlyConfigured(f"{column.field}: Postgres cannot call its {method}().")
    return chosen


def _refuse_parents(model: type[Model]) -> None:
    """Raise ImproperlyConfigured for a model with rows in several tables, or with a key of several columns."""
    if model._meta.parents and not model._meta.proxy:
        raise ImproperlyConfigured(f"{model.__name__} has rows in several tables: write it by the ORM.")
    if not model._meta.pk.concrete:
        raise ImproperlyConfigured(f"{model.__name__} has a key of several columns: write it by the ORM.")


def refuse_own_table(model: type[Model], answer: Json) -> None:
    """Raise ImproperlyConfigured if the answer has a field of a related row in the command's own table.

    In the statement, the name of that table means the changed rows alone, so the related row would not be found.
    """
    if path := answer.contents.tables.get(model._meta.db_table):
        raise ImproperlyConfigured(
            f"{model.__name__}: a command cannot answer {path}, which is in its own table, of which it sees only the "
            "rows that it changes."
        )


def key_name(model: type[Model], schema: type[BaseModel]) -> str:
    """The schema's field with the primary key; empty if it has none."""
    return next((name for name in schema.model_fields if path_of(schema, name) == model._meta.pk.attname), "")


def table_of(model: type[Model]) -> str:
    quoted: str = connection.ops.quote_name(model._meta.db_table)
    return quoted


def written_as(model: type[Model]) -> str:
    """Return the name of the changed rows in a statement: that of their table.

    A schema in front of it becomes part of the name: a common table expression cannot have one.
    """
    return table_of(model).replace('"."', ".")


class RowByKey:
    """The query of one row by its key, for a command that could not see all of the row in its own statement."""

    def __init__(self, model: type[Model], schema: type[BaseModel]) -> None:
        self.model, self.schema = model, schema

    @cached_property
    def _query(self) -> One:
        return One(QuerySet(self.model).filter(pk=Param("key")), self.schema)

    async def read(self, key: str) -> bytes:
        """Return the row's JSON. Raises NotWritten if there is none.

        Raises OutcomeUnknown if the write is committed, but the row cannot be read.
        """
        is_committed = current.get() is None
        try:
            found = await self._query(key=cast("Any", self.model._meta.pk).to_python(key))
        except OperationalError as error:
            if is_committed:
                raise OutcomeUnknown(str(error)) from error
            raise
        if found is None:
            if not is_committed:
                # raises the foreign key's error, if the row names another that is not there
                await fetch(IMMEDIATE, ())
            raise NotWritten(is_missing=True)
        return found


class IsWhole(Expression):
    """Whether the joins of a query have found each row that a foreign key with a constraint names."""

    def __init__(self) -> None:
        super().__init__(output_field=BooleanField())

    def as_sql(self, compiler: Any, _connection: Any) -> tuple[str, Any]:
        quote = connection.ops.quote_name
        # Before Django 6.1 the compiler does not quote its own aliases, such as T3.
        quote_alias = getattr(compiler, "quote_name_unless_alias", quote)
        missing = [
            f"({quote_alias(join.parent_alias)}.{quote(own)} IS NOT NULL"
            f" AND {quote_alias(alias)}.{quote(other)} IS NULL)"
            for alias, join in compiler.query.alias_map.items()
            if join.join_type and compiler.query.alias_refcount[alias] and _is_constraint(join.join_field)
            for own, other in join.join_cols
        ]
        return f"NOT ({' OR '.join(missing)})" if missing else "true", []


def _is_constraint(field: Any) -> bool:
    """Whether the field is a foreign key of the joining table itself, and has a constraint."""
    return bool(field.concrete and getattr(field, "db_constraint", True))


def read_written(
    model: type[Model], columns: Sequence[Json | Expression | str], *, are_gone: bool = False
) -> Compiled:
    """Return the ORM's own SQL that reads `columns` of the changed rows, and whether each row is whole.

    A command that has waited for another writer changes the row as that writer has left it. But related rows that the
    writer has made are not in the command's snapshot. So inner joins become outer ones, which leave no changed row
    out, and a row is not whole if its foreign key names a row that the snapshot lacks. Raises ImproperlyConfigured if
    the ORM would use an inner join, but no constraint keeps the related row, unless `are_gone`: the rows are deleted.
    """
    query: Any = QuerySet(model).order_by().values_list(*columns, IsWhole()).query
    for alias, join in [*query.alias_map.items()]:
        if join.join_type != INNER or not query.alias_refcount[alias]:
            continue
        if not (are_gone or _is_constraint(join.join_field)):
            raise ImproperlyConfigured(
                f"{model.__name__}: a command cannot answer fields of the row that {join.join_field.name} names, "
                "which may be missing: it has no constraint."
            )
        query.alias_map[alias] = join.promote()
    sql, parameters = query.get_compiler(connection=connection).as_sql()
    table = re.escape(table_of(model))
    # Only after FROM or before a dot: elsewhere the text could be a column of a table that is named like the schema.
    written = re.sub(rf"(?<=FROM ){table}|{table}(?=\.)", lambda _: written_as(model), sql)
    return written, tuple(parameters)


def rows_of_table(rows: "QuerySet[Any]") -> "QuerySet[Any]":
    """The same rows by a query that Postgres can change and lock: without DISTINCT, groups in a subquery.

    Raises ImproperlyConfigured for distinct(fields) and windows, by which a row depends on the query's other rows.
    """
    query = rows.query
    if query.distinct_fields or query.where.contains_over_clause:
        raise ImproperlyConfigured(
            f"{rows.model.__name__}: a command's rows have no distinct(fields) and no window."
        )
    if query.group_by is not None:
        return QuerySet(rows.model).filter(pk__in=rows.order_by().values("pk"))
    rows = rows.all()
    rows.query.distinct = False
    return rows


def insertion(model: type[Model], values: Mapping[Any, Expression]) -> Compiled:
    """Return the INSERT of one row, with an expression for each field in `values`."""
    query = InsertQuery(model)
    new: Any = SimpleNamespace(**{field.attname: value for field, value in values.items()})
    query.insert_values([*values], [new], raw=True)  # raw: no pre_save, no defaults of Python
    sql, parameters = SQLInsertCompiler(query, connection, DEFAULT_DB_ALIAS).as_sql()[0]
    return sql, tuple(parameters)


def split_values(model: type[Model], sql: str) -> tuple[str, str]:
    """Return the INSERT without its VALUES, and the list of the values, so that a SELECT can take their place."""
    head, found, values = sql.partition(" VALUES (")
    if not found or not values.endswith(")"):
        raise ImproperlyConfigured(f"{model.__name__}: an INSERT of Django's in another form: {sql}")
    return head, values.removesuffix(")")


def _is_given(name: str) -> Param:
    return Param(GIVEN + name)


def _seen(rows: "QuerySet[Any]", answer: Json) -> "QuerySet[Any]":
    """Return the rows with a digest that is in the parameter `seen`.

    If a queryset has joins, Django puts all its conditions into a subquery, which Postgres does not run again after
    waiting for a lock. So the comparison of the digest stands outside of that subquery.
    """
    if rows.query.count_active_tables() > 1:
        rows = QuerySet(rows.model).filter(pk__in=rows.order_by().values("pk"))
    return rows.filter(GreaterThan(StrIndex(Cast(Param(SEEN), TextField()), Digest(answer.correlated())), 0))


def _any(conditions: Iterable[Q]) -> Q:
    either = Q()
    for condition in conditions:
        either |= condition
    return either


def sql_of(model: type[Model], expression: Any) -> Compiled:
    """Return the SQL and the parameters of an expression without a FROM: only subqueries in it may read columns."""
    query = Query(model)
    compiler = query.get_compiler(connection=connection)
    sql, parameters = compiler.compile(expression.resolve_expression(query))
    return sql, tuple(parameters)
