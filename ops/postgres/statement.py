"""Statements for the native pool, written by the ORM.

A queryset is built and compiled once, with a `Param` wherever a value will stand; a call only fills in the values.
Building and compiling a filtered queryset costs 80 to 250 us, filling in one or two.
"""

import re
from collections.abc import Mapping
from itertools import count
from typing import Any

import psycopg
from django.db.models import Expression, Field
from django.db.models.sql.compiler import SQLCompiler
from psycopg.adapt import AdaptersMap, Dumper, PyFormat, Transformer

_numbers = count(1)  # of statements, for their names
_PLACEHOLDER = re.compile("%[s%]")
_adapters = AdaptersMap(psycopg.adapters)  # a copy, with a dumper of bytes of its own


class Bytes(Dumper):
    """psycopg's own, without a connection, doubles quotes."""

    oid = _adapters.types["bytea"].oid

    def dump(self, obj: Any) -> bytes:
        return b"\\x" + bytes(obj).hex().encode()


for _type in (bytes, bytearray, memoryview):
    _adapters.register_dumper(_type, Bytes)
_transformer = Transformer(_adapters)


def literal(value: Any) -> str:
    """A value as SQL."""
    return _transformer.as_literal(value).decode()


class Param(Expression):
    """Stands for a value in a queryset: `Product.objects.filter(low_price__gte=Param("least"))`.

    Postgres infers its type from where it stands. In a place that leaves it open, say `output_field` and Cast.
    """

    def __init__(self, name: str, output_field: "Field[Any, Any] | None" = None) -> None:
        super().__init__(output_field=output_field)
        self.name = name

    def as_sql(self, compiler: SQLCompiler, _connection: Any) -> tuple[str, Any]:
        return "%s", [self]

    def get_group_by_cols(self) -> list[Any]:
        return []  # a value is no column to group by


class Statement:
    """SQL with `$1`, `$2`, ... and the parameters in their places. Connections prepare it under `name`.

    Constants are literals in it, as in the ORM's own statements: they have their types (`$1` in `time - $1` is always
    a time to Postgres), and a plan made for all values can still use an index for one (`WHERE published`).
    """

    def __init__(
        self,
        sql: str,
        parameters: tuple[Any, ...],
        *,
        quick: bool = False,
        repeatable: bool = True,
        flush: bool = True,
    ) -> None:
        """`sql` has Django's placeholders: %s for each of `parameters`, and %% for a percent sign.

        `quick` statements take Postgres a few milliseconds at most: they share a connection with those of other
        requests, which wait for them; others have a connection of their own while they run. A `repeatable` one may
        be run again where the connection was lost, before its result came: it only reads.
        """
        self.quick = quick
        self.repeatable = repeatable
        self.flush = flush
        values = iter(parameters)

        def fill(found: re.Match[str]) -> str:
            if found[0] == "%%" or isinstance(value := next(values), Param):
                return found[0]
            return literal(value).replace("%", "%%")

        # With the constants filled in and Django's placeholders for the rest, for its own connection.
        self.template = _PLACEHOLDER.sub(fill, sql)
        numbers = count(1)
        self.sql = _PLACEHOLDER.sub(
            lambda found: "%" if found[0] == "%%" else f"${next(numbers)}", self.template
        ).encode()
        self.name = b"s%d" % next(_numbers)
        self.parameters = tuple(each.name for each in parameters if isinstance(each, Param))
        self.names = frozenset(self.parameters)

    def bind(self, values: Mapping[str, Any]) -> list[bytes | None]:
        """The parameters in Postgres's text format. Raises TypeError unless `values` has exactly the names."""
        if values.keys() != self.names:
            wrong = ", ".join(sorted(values.keys() ^ self.names))
            raise TypeError(f"unknown or missing parameters: {wrong}; this query takes {sorted(self.names)}")
        return [text_of(values[name]) for name in self.parameters]


def text_of(value: Any) -> bytes | None:
    """A value in Postgres's text format."""
    text = None if value is None else _transformer.get_dumper(value, PyFormat.TEXT).dump(value)
    return None if text is None else bytes(text)
