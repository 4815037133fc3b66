"""Many rows in one statement: the set-based counterparts of Insert, Update and Delete.

    create = InsertMany(Product, ProductOut, defaults={"time_created": Now()})
    change = UpdateMany(Product.objects.all(), ProductOut)
    remove = DeleteMany(Product.objects.all(), ProductOut)

    rows = await create([{"low_price": Decimal("1.50"), ..., "category": "garden"}, {...}])
    rows.json, rows.keys                                    # b'[{"id":7,...},{"id":8,...}]' and ["7", "8"]
    await change([{"id": 7, "sold_qty": 1}, {"id": 8, "category": None}])   # all other fields stay
    await remove([{"id": 7}, {"id": 8}])

A command writes all items or none, in one round trip, and answers the rows in the order of the items. If the key of
an item, or its value for a related row, finds no row, NotWritten.items names the item. A broken constraint is
psycopg's error, which does not name the item.

Each field of the items is passed as one array. The rows to change are locked in the order of their keys before any
row is changed, so two commands do not deadlock over their rows. The rest is the SQL of the single commands, written
by the ORM's compilers:

    WITH "bulk items" AS (SELECT i.*, j8."id" AS k8
                          FROM unnest($1::bit varying[], $2::bigint[], ...) WITH ORDINALITY AS i(given, c0, ..., at)
                          LEFT JOIN "category" AS j8 ON j8."slug" = i.c8),
         "bulk found"(key) AS (SELECT "id" FROM "product" WHERE "id" = ANY (...) ORDER BY "id" FOR NO KEY UPDATE),
         "bulk faults"(at, name) AS (SELECT at, 'category' FROM "bulk items" WHERE c8 IS NOT NULL AND k8 IS NULL
                                     UNION ALL SELECT at, 'id' FROM "bulk items" WHERE c0 NOT IN (...)),
         "product" AS (UPDATE "product" SET "sold_qty" = CASE WHEN get_bit(given, 5) = 1 THEN c6 ELSE ... FROM
                       "bulk items" WHERE "id" = c0 AND NOT EXISTS (SELECT FROM "bulk faults") RETURNING ...)
    SELECT string_agg(shown, ... ORDER BY at), ..., (SELECT ... FROM "bulk faults"), bool_and(is_whole)
    FROM (SELECT '{"id":' || "product"."id" || ... FROM "product" LEFT JOIN ...) AS written(shown, key, at, is_whole)
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, datetime, time
from decimal import Decimal
from itertools import chain
from operator import itemgetter
from types import MappingProxyType, NoneType
from typing import Any
from uuid import UUID

from django.core.exceptions import ImproperlyConfigured
from django.db import connection
from django.db.models import BooleanField, Expression, Field, Func, JSONField, Model, QuerySet, TextField
from django.db.models.sql import DeleteQuery, UpdateQuery
from psycopg import DataError
from psycopg.pq.abc import PGresult
from pydantic import BaseModel

from ops.postgres.commands import (
    GIVEN,
    Column,
    Command,
    Compiled,
    Delete,
    Insert,
    NotWritten,
    RowByKey,
    Rows,
    Update,
    insertion,
    key_name,
    plain_type,
    read_written,
    refuse_own_table,
    rows_of_table,
    split_values,
    table_of,
    written_as,
)  # fmt: skip
from ops.postgres.compiled import SEPARATOR, Json, compile_queryset, joined_sql, quote, row, value
from ops.postgres.statement import Param, Statement, text_of

Values = Sequence[Mapping[str, Any]]  # the items: each one's values by field name

MAX_FAULTS = 10  # faults that one NotWritten names
# Names in the statement that no table and no column has.
ITEMS, FOUND, FAULTS, CHANGED, AT = (
    f'"bulk {name}"' for name in ("items", "found", "faults", "changed", "at")
)
# Types with texts that need no quotes in an array.
PLAIN = frozenset((int, Decimal, float, bool, UUID, date, datetime, time, NoneType))
INTEGERS = frozenset((int, NoneType))
SPECIAL, ESCAPED = re.compile(r'["\\]'), r"\\\g<0>"  # characters that need a backslash in quotes


def array(values: Sequence[Any]) -> bytes:
    """The values as an array in Postgres's text format. Raises psycopg's DataError for a NUL."""
    kinds = {*map(type, values)}
    if kinds == {str} and not ('"' in (text := "".join(values)) or "\\" in text or "\0" in text):
        return b'{"%b"}' % '","'.join(values).encode()
    if kinds <= INTEGERS:  # a quarter of the time of a str() for each
        return b"{%b}" % str([*values])[1:-1].replace("None", "NULL").encode()
    text_of_one = str if kinds <= PLAIN else _quoted
    texts = ["NULL" if value is None else text_of_one(value) for value in values]
    return b"{%b}" % ",".join(texts).encode()


def _quoted(value: Any) -> str:
    text: str = value if type(value) is str else (text_of(value) or b"").decode()
    if "\0" in text:
        raise DataError("PostgreSQL text fields cannot contain NUL (0x00) bytes")
    return f'"{SPECIAL.sub(ESCAPED, text)}"'


class Sql(Expression):
    """SQL that this module writes itself: a column of the items, or a condition on such a column."""

    def __init__(self, sql: str, output_field: "Field[Any, Any]") -> None:
        super().__init__(output_field=output_field)
        self.sql = sql

    def as_sql(self, _compiler: Any, _connection: Any) -> tuple[str, Any]:
        return self.sql, []


class Many(Command[Values, Rows]):
    """One compiled statement that changes many rows. Call it with the items."""

    by_key: RowByKey | None = None
    required: frozenset[str]
    optional: tuple[str, ...]  # fields that an item may lack; for each, a bit tells whether the item has it
    key = ""  # the field with the primary key of the row to change or delete; empty if rows are inserted
    python_defaults: Mapping[str, Callable[[], Any]] = MappingProxyType({})

    async def __call__(self, items: Values) -> Rows:
        """Write all items or none. Raises as a single command does, and ValueError if two items have the same key."""
        return await self.run(items)

    def bind(self, values: Values) -> tuple[Statement, list[bytes | None]]:
        """Return the statement, and its arrays: one for each column, and one of bits that tell null from no value.

        Raises TypeError for unknown or missing fields, and ValueError if two items have the same key.
        """
        shapes = [tuple(item) for item in values]
        bits = {}
        for shape in {*shapes}:
            names = frozenset(shape)
            if not self.required <= names <= self.columns.keys():
                wrong = ", ".join(sorted((names - self.columns.keys()) | (self.required - names)))
                raise TypeError(f"unknown or missing fields: {wrong}; an item takes {sorted(self.columns)}")
            bits[shape] = "".join("01"[name in names] for name in self.optional)
        some = {*chain(*bits)}
        every = some.intersection(*bits)
        if self.key and len({item[self.key] for item in values}) < len(values):
            raise ValueError("two items have one key")
        arrays = {GIVEN: array([bits[shape] for shape in shapes])}
        for name, column in self.columns.items():
            default = self.python_defaults.get(name)
            if name in every:
                cells = [*map(itemgetter(name), values)]
            elif default:
                cells = [item[name] if name in item else default() for item in values]
            elif name in some:
                cells = [item.get(name) for item in values]
            else:
                cells = []  # unnest() fills shorter arrays with nulls
            if isinstance(column.field, JSONField):
                cells = [column.prepare(cell) for cell in cells]
            arrays[name] = array(cells)
        return self.statement, [arrays[name] for name in self.statement.parameters]

    def read(self, result: PGresult, _items: Values) -> Rows:
        text, keys, faults, are_whole = (result.get_value(0, at) for at in range(4))
        if faults:
            raise NotWritten(items=[(at - 1, name) for at, name in json.loads(faults)])
        if are_whole == b"f":
            text = b""
        return Rows(b"[]" if text is None else text, json.loads(keys or b"[]"))

    async def complete(self, written: Rows) -> Rows:
        """Return the rows, with JSON read by key if it is empty. Raises NotWritten if a row was deleted since."""
        if written.json or not self.by_key:
            return written
        rows = [await self.by_key.read(key) for key in written.keys]
        return Rows(b"[%b]" % SEPARATOR.join(rows), written.keys)

    def _given(self, name: str) -> Expression:
        """Return SQL for whether an item has the field."""
        return Sql(f"(get_bit({ITEMS}.given, {self.optional.index(name)}) = 1)", BooleanField())

    def _value(self, column: Column) -> Expression:
        """Return SQL for the value of a column: the item's own, or the key of the related row that the item names."""
        if column.related:
            return Sql(self._cell(column.name, "k"), column.field)
        cast = f"::{kind}" if (kind := plain_type(column.field)).endswith("[]") else ""
        return Sql(self._cell(column.name) + cast, column.field)

    def _cell(self, name: str, prefix: str = "c") -> str:
        """Return the items' column for a field: `c` has their values, `k` the keys of the rows that these name."""
        return f"{ITEMS}.{prefix}{[*self.columns].index(name)}"

    def _items(self) -> Compiled:
        """Return the query of the items, with the keys of the related rows that they name."""
        names, types = ["given"], ["%s::bit varying[]"]
        keys, joins = "", ""
        for number, column in enumerate(self.columns.values()):
            names.append(f"c{number}")
            # unnest() would flatten arrays of arrays, so the value of an array field comes as a text
            kind = plain_type(column.related or column.field)
            types.append(f"%s::{'text' if kind.endswith('[]') else kind}[]")
            if column.related:
                key, named = _quote(column.field.target_field.column), _quote(column.related.column)
                related = table_of(column.related.model)
                keys += f", j{number}.{key} AS k{number}"
                joins += f" LEFT JOIN {related} AS j{number} ON j{number}.{named} = i.c{number}"
        items = f"unnest({', '.join(types)}) WITH ORDINALITY AS i({', '.join(names)}, at)"
        return f"SELECT i.*{keys} FROM {items}{joins}", (Param(GIVEN), *map(Param, self.columns))

    def _found(self, rows: "QuerySet[Any]", *, no_key: bool) -> Compiled:
        """Return the query of the items' rows among `rows`, which locks them in the order of their keys.

        With `no_key` (FOR NO KEY UPDATE), other transactions may insert rows with foreign keys to these meanwhile.
        """
        keys = f"ARRAY(SELECT {self._cell(self.key)} FROM {ITEMS})"
        is_named = Func("pk", template=f"%(expressions)s = ANY ({keys})", output_field=BooleanField())
        chosen = rows_of_table(rows.filter(is_named))
        sql, parameters = compile_queryset(chosen.order_by("pk"), ["pk"])
        if any(isinstance(each, Param) for each in parameters):
            raise ImproperlyConfigured(
                "The queryset of a command of many rows may have no Param: its items name the rows by their keys."
            )
        table = re.sub('^.*"[.]"', '"', table_of(self.model))  # FOR UPDATE OF takes no schema
        lock = connection.ops.for_update_sql(of=(table,), no_key=no_key)
        return f"{sql} {lock}", parameters

    def _faults(self) -> Compiled:
        """Return the query of the faults: each item that names a missing row, by number from 1, and its field."""
        missing = {
            name: f"{self._cell(name)} IS NOT NULL AND {self._cell(name, 'k')} IS NULL"
            for name, column in self.columns.items()
            if column.related
        }
        if self.key:
            key = self._cell(self.key)
            missing[self.key] = f"({key} IS NULL OR {key} NOT IN (SELECT key FROM {FOUND}))"
        found = [f"SELECT at, {quote(name)} FROM {ITEMS} WHERE {wrong}" for name, wrong in missing.items()]
        return " UNION ALL ".join(found) or "SELECT 0, '' WHERE false", ()

    def _changed(self, change: Compiled, joined: str) -> Compiled:
        """Restrict an UPDATE or DELETE of all rows to the items' rows, or to none if an item is at fault.

        `joined` is the word that joins the items to `change`: FROM or USING.
        """
        chosen = f"{ITEMS} WHERE {self._pk} = {self._cell(self.key)} AND NOT EXISTS (SELECT FROM {FAULTS})"
        sql, parameters = change
        return f"{sql} {joined} {chosen} RETURNING {table_of(self.model)}.*, {ITEMS}.at AS {AT}", parameters

    @property
    def _pk(self) -> str:
        return f"{table_of(self.model)}.{_quote(self.model._meta.pk.column)}"

    def _complete(self, changes: Mapping[str, Compiled], answer: Json) -> Statement:
        """Return the statement around `changes`, which are queries by name, and the JSON of `answer`.

        The last of the changes gives the changed rows, and is named like their table.
        """
        refuse_own_table(self.model, answer)
        at: Any = Sql(f"{table_of(self.model)}.{AT}", TextField())  # nothing reads this type
        read = read_written(self.model, [answer.without_ends(), "pk", at])
        parts = {ITEMS: self._items(), **changes}
        before = ", ".join(f"{name} AS ({sql})" for name, (sql, _) in parts.items())
        bound = [each for _, parameters in (*parts.values(), read) for each in parameters]
        rows = f"'[' || {joined_sql('shown', answer, ' ORDER BY at')} || ']'"
        faults = f"SELECT at, name FROM {FAULTS} ORDER BY at LIMIT {MAX_FAULTS}"
        return Statement(
            f"WITH {before} SELECT {rows}, json_agg(key::text ORDER BY at),"
            f" (SELECT json_agg(json_build_array(at, name)) FROM ({faults}) AS named), bool_and(is_whole)"
            f" FROM ({read[0]}) AS written(shown, key, at, is_whole)",
            tuple(bound),
            repeatable=False,
        )


class InsertMany(Many):
    """Inserts many rows. The parameters are Insert's; with `only_keys`, the JSON is an array of the rows' keys."""

    def __init__(
        self,
        model: type[Model],
        schema: type[BaseModel],
        fields: Iterable[str] | None = None,
        *,
        defaults: Mapping[str, Any] | None = None,
        only_keys: bool = False,
    ) -> None:
        one = Insert(model, schema, fields, defaults=defaults)
        self.model, self.columns, self.required, self.by_key = model, one.columns, one.required, one.by_key
        self.optional = tuple(name for name in one.columns if name in one.optional)
        self.python_defaults = one.python_defaults
        sql, parameters = insertion(model, one.values(self._value, self._given))
        head, values = split_values(model, sql)
        chosen = f"SELECT {values} FROM {ITEMS} WHERE NOT EXISTS (SELECT FROM {FAULTS}) ORDER BY at"
        changes: dict[str, Compiled] = {
            f"{FAULTS}(at, name)": self._faults(),
            CHANGED: (f"{head} {chosen} RETURNING *", parameters),
            # RETURNING cannot name a column of the items, but gives the rows in the order of the items.
            written_as(model): (f"SELECT *, row_number() OVER () AS {AT} FROM {CHANGED}", ()),
        }
        self.statement = self._complete(changes, _answer(model, schema, only_keys=only_keys))


class UpdateMany(Many):
    """Changes the given fields of the rows that the items name by key, among those of a queryset; all others stay."""

    def __init__(
        self,
        rows: "QuerySet[Any]",
        schema: type[BaseModel],
        fields: Iterable[str] | None = None,
        *,
        only_keys: bool = False,
    ) -> None:
        one = Update(rows, schema, fields)
        self.model = model = one.model
        self.by_key, self.key = one.by_key, key_of(model, schema)
        self.columns = {self.key: Column(self.key, model._meta.pk), **one.columns}
        self.required, self.optional = frozenset((self.key,)), tuple(one.columns)
        query: Any = QuerySet(model).query.chain(UpdateQuery)
        query.add_update_fields(one.values(self._value, self._given))
        query.clear_ordering(force=True)
        changes = {
            f"{FOUND}(key)": self._found(rows, no_key=True),
            f"{FAULTS}(at, name)": self._faults(),
            written_as(model): self._changed(query.get_compiler(connection=connection).as_sql(), "FROM"),
        }
        self.statement = self._complete(changes, _answer(model, schema, only_keys=only_keys))


class DeleteMany(Many):
    """Deletes the rows that the items name by key, among those of a queryset. The JSON is an array of the keys.

    Raises ImproperlyConfigured where Delete does.
    """

    optional = ()

    def __init__(self, rows: "QuerySet[Any]", schema: type[BaseModel]) -> None:
        self.model = model = Delete(rows, schema).model
        self.key = key_of(model, schema)
        self.columns, self.required = {self.key: Column(self.key, model._meta.pk)}, frozenset((self.key,))
        query: Any = QuerySet(model).query.chain(DeleteQuery)
        query.clear_ordering(force=True)
        changes = {
            f"{FOUND}(key)": self._found(rows, no_key=False),
            f"{FAULTS}(at, name)": self._faults(),
            written_as(model): self._changed(query.get_compiler(connection=connection).as_sql(), "USING"),
        }
        self.statement = self._complete(changes, _answer(model, schema, only_keys=True))


def key_of(model: type[Model], schema: type[BaseModel]) -> str:
    """The schema's field with the primary key. Raises ImproperlyConfigured if it has none."""
    found = key_name(model, schema)
    if not found:
        raise ImproperlyConfigured(f"{schema.__name__}: a command of many rows needs the field of their key.")
    return found


def _quote(name: Any) -> str:
    quoted: str = connection.ops.quote_name(name)
    return quoted


def _answer(model: type[Model], schema: type[BaseModel], *, only_keys: bool) -> Json:
    return (
        value(model, schema, key_of(model, schema)) if only_keys else row(model, schema, schema.model_fields)
    )
