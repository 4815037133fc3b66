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

_names = count(1)
_PLACEHOLDER = re.compile("%[s%]")
_adapters = AdaptersMap(psycopg.adapters)  # a copy, for what follows


class Bytes(Dumper):
    """psycopg's own, without a connection, doubles quotes."""

    oid = _adapters.types["bytea"].oid

    def dump(self, obj: Any) -> bytes:
        return b"\\x" + bytes(obj).hex().encode()


for _kind in (bytes, bytearray, memoryview):
    _adapters.register_dumper(_kind, Bytes)
_transformer = Transformer(_adapters)


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
        return []  # as any value's


class Statement:
    """SQL with `$1`, `$2`, ... and what to put there. `name` is what connections prepare it as.

    Constants are literals in it, as in what the ORM sends: they have their types (`$1` in `time - $1` is a time to
    Postgres, whatever comes), and a plan made for all values can still use an index for one (`WHERE published`).
    """

    def __init__(self, sql: str, parameters: tuple[Any, ...]) -> None:
        """`sql` has Django's placeholders: %s for each of `parameters`, and %% for a percent sign."""
        values = iter(parameters)

        def fill(found: re.Match[str]) -> str:
            if found[0] == "%%" or isinstance(value := next(values), Param):
                return found[0]
            return _transformer.as_literal(value).decode().replace("%", "%%")

        # The constants filled in, Django's placeholders for the rest: what its own connection takes.
        self.template = _PLACEHOLDER.sub(fill, sql)
        numbers = count(1)
        self.sql = _PLACEHOLDER.sub(
            lambda found: "%" if found[0] == "%%" else f"${next(numbers)}", self.template
        ).encode()
        self.name = b"s%d" % next(_names)
        self.parameters = tuple(each.name for each in parameters if isinstance(each, Param))
        self.names = frozenset(self.parameters)

    def bind(self, values: Mapping[str, Any]) -> list[bytes | None]:
        """The parameters in Postgres's text format. Raises TypeError unless `values` has exactly the names."""
        if values.keys() != self.names:
            wrong = ", ".join(sorted(values.keys() ^ self.names))
            raise TypeError(f"unknown or missing parameters: {wrong}; this query takes {sorted(self.names)}")
        return [_text(values[name]) for name in self.parameters]


def _text(value: Any) -> bytes | None:
    if value is None:
        return None
    text = _transformer.get_dumper(value, PyFormat.TEXT).dump(value)
    return None if text is None else bytes(text)
