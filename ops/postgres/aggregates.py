"""Aggregates compiled once, whose results Postgres writes as JSON.

    class Prices(Schema):
        count: int
        average: float | None

    total = Total(Product.objects.all(), Prices, count=Count("*"), average=Avg("low_price"))
    await total()         # b'{"count":10000000,"average":249.98}'

    class GroupPrices(Prices):
        category: Annotated[str | None, Field(alias="category.slug")]

    rows = Product.objects.values("category__slug").annotate(count=Count("*"), average=Avg("low_price"))
    groups = Groups(rows.order_by("category__slug"), GroupPrices, limit=1000)
    await groups()        # b'[{"count":3,"average":1.5,"category":null},...]' and whether there are more groups

As in compiled.py, the ORM writes the SQL and the schema defines the JSON. A field that Postgres cannot write as the
schema does is refused when it is declared. The values are those of the ORM's own `aggregate()` and `annotate()`. An
aggregate with `default=` is never null; for the others:

    aggregate | of                | is null                            | the schema may print it as
    ----------+-------------------+------------------------------------+--------------------------------------------
    Count     | anything          | never                              | an integer
    Min, Max  | a field           | of no rows, or of nulls only       | the field (json_sql.py)
    Sum       | a number          | the same                           | the field, however large the sum
    Avg       | integers, floats  | the same                           | a float
    Avg       | decimals          | the same                           | a float, or rounded to some decimal places
"""

from collections.abc import Sequence
from decimal import ROUND_HALF_UP, Context, Decimal
from typing import Any

import orjson
from django.core.exceptions import ImproperlyConfigured
from django.db.models import Aggregate, Avg, BigIntegerField, Count, F, Func, Max, Min, Model, QuerySet, Sum
from django.db.models.functions import Coalesce
from psycopg.pq.abc import PGresult
from pydantic import BaseModel, ValidationError

from ops.postgres.compiled import SEPARATOR, compile_queryset, path_of, quote, value
from ops.postgres.json_sql import NULL_UNLESS_FINITE, QUOTES, JsonSql, choose, json_sql, target_of
from ops.postgres.pool import fetch
from ops.postgres.statement import Statement

WHOLE = BigIntegerField()  # for numbers of rows, and sums of integers
INTEGERS = ("IntegerField", "AutoField")  # endings of the internal types of all integers
WITHOUT_ORDER = ("BooleanField", "JSONField", "UUIDField")  # for which Postgres has no min and max
MOST_DIGITS = Context(prec=1000)  # the most that a numeric can be declared with


def rounded(value: Decimal, places: int) -> str:
    """Return the text that Postgres's round() makes: half away from zero, all places, no minus before a zero."""
    return f"{MOST_DIGITS.plus(value.quantize(Decimal(1).scaleb(-places), ROUND_HALF_UP, MOST_DIGITS)):f}"


def _rounding(places: int) -> JsonSql:
    return JsonSql(f"round({{}}, {places})", lambda value: f'"{rounded(value, places)}"', QUOTES)


# Postgres's average of numerics has 16 digits or more, even if it is zero. So it is written as a float, or rounded.
FLOAT = JsonSql(
    NULL_UNLESS_FINITE.replace("{}", "{}::float8"), lambda value: orjson.dumps(float(value)).decode()
)
FLOAT_SAMPLES = [2.0, 1.5, -1e-7, 1e300, float("nan")]
MAX_PLACES = 12
DECIMALS = [FLOAT, *map(_rounding, range(MAX_PLACES + 1))]
TIES = [Decimal(5).scaleb(-places - 1) for places in range(MAX_PLACES + 1)]
DECIMAL_SAMPLES = [Decimal("1234567.8901234567890123"), Decimal("0E-20"), *TIES, *(-tie / 2 for tie in TIES)]


class Ungrouped(Func):
    """An aggregate over all rows as one group. Without this wrapper, `annotate` would make a group of each row."""

    template = "%(expressions)s"
    arity = 1
    contains_aggregate = False

    @property
    def empty_result_set_value(self) -> Any:
        """The value of an aggregate with a filter that no row can pass."""
        return self.get_source_expressions()[0].empty_result_set_value


class Total:
    """Aggregates over all rows of a queryset as one object, with the values of `queryset.aggregate(**aggregates)`."""

    def __init__(self, queryset: "QuerySet[Any]", schema: type[BaseModel], **aggregates: Aggregate) -> None:
        """The schema has a field for each of the `aggregates`, and no other."""
        query = queryset.query
        if query.is_sliced or query.distinct or query.combinator or query.group_by is not None:
            raise ImproperlyConfigured(
                f"{schema.__name__}: a total is not of a slice, distinct rows or groups."
            )
        if query.where.contains_over_clause or query.select_for_update:
            raise ImproperlyConfigured(f"{schema.__name__}: a total's rows have no window and no lock.")
        if schema.model_fields.keys() != aggregates.keys():
            wrong = ", ".join(sorted(schema.model_fields.keys() ^ aggregates.keys()))
            raise ImproperlyConfigured(f"{schema.__name__}: its fields and the aggregates differ in {wrong}.")
        aliases = {
            name: f"aggregate_{name}" for name in schema.model_fields
        }  # annotate() refuses the name of a field
        rows = queryset.order_by().annotate(
            **{alias: Ungrouped(aggregates[name]) for name, alias in aliases.items()}
        )
        members = []
        for name, alias in aliases.items():
            [aggregate] = rows.query.annotations[alias].get_source_expressions()
            members.append(_member(aggregate, queryset.model, schema, name, is_grouped=False))
        sql, parameters = compile_queryset(rows, [*aliases.values()])
        self.statement = Statement(f"SELECT {_object(members)} FROM ({sql}) {_names(members)}", parameters)

    async def __call__(self, **values: Any) -> bytes:
        return self.read(await fetch(self.statement, self.statement.bind(values)))

    def read(self, result: PGresult) -> bytes:
        """The object, from the statement's result."""
        return result.get_value(0, 0) or b""


class Groups:
    """Aggregates of each group of rows as an array of objects, in the order of the queryset.

    The queryset is `.values("category__slug").annotate(count=Count("*")).order_by("category__slug")`. Each field of
    the schema is one of the queryset's aggregates, or one of its values, which an alias like `category.slug` names.
    """

    def __init__(self, queryset: "QuerySet[Any]", schema: type[BaseModel], *, limit: int) -> None:
        query = queryset.query
        if not isinstance(query.group_by, tuple) or not queryset.ordered:
            raise ImproperlyConfigured(
                f"{schema.__name__}: groups are of values(...).annotate(...), and in order."
            )
        members, paths = [], []
        for name in schema.model_fields:
            path = path_of(schema, name)
            if path in query.annotations and query.annotations[path].contains_aggregate:
                members.append(
                    _member(query.annotations[path], queryset.model, schema, name, is_grouped=True)
                )
            elif path in query.values_select:
                members.append(key_member(queryset.model, schema, name))
            else:
                raise ImproperlyConfigured(
                    f"{schema.__name__}.{name} is neither an aggregate nor one of the values to group by."
                )
            paths.append(path)
        sql, parameters = compile_queryset(queryset, paths)
        self.limit = limit
        self.statement = Statement(
            f"SELECT string_agg({_object(members)}, {quote(SEPARATOR.decode())}), count(*) "
            f"FROM ({sql} LIMIT {limit + 1:d}) {_names(members)}",
            parameters,
        )

    async def __call__(self, **values: Any) -> tuple[bytes, bool]:
        return self.read(await fetch(self.statement, self.statement.bind(values)))

    def read(self, result: PGresult) -> tuple[bytes, bool]:
        """Return the array of at most `limit` groups, and whether there are more, from the statement's result."""
        text, count = result.get_value(0, 0) or b"", int(result.get_value(0, 1) or 0)
        has_more = count > self.limit
        if has_more:
            text = text[: text.rindex(SEPARATOR)]
        return b"[%b]" % text, has_more


Member = tuple[str, JsonSql, bool]  # a field's name, the SQL of its value, whether it may be null


def _object(members: Sequence[Member]) -> str:
    """SQL for an object of the columns c0, c1, ..."""
    parts, literal = [], ""
    for at, (name, writer, nullable) in enumerate(members):
        before, text, after = writer.text(f"c{at}", nullable=nullable)
        parts += [quote(f"{literal}{',' if at else '{'}{orjson.dumps(name).decode()}:{before}"), text]
        literal = after
    return " || ".join([*parts, quote(literal + "}")])


def _names(members: Sequence[Member]) -> str:
    return f"AS aggregated({', '.join(f'c{at}' for at in range(len(members)))})"


def key_member(model: type[Model], schema: type[BaseModel], name: str) -> Member:
    """A field of the schema that is the value of a column. Raises ImproperlyConfigured for an object or a list."""
    json = value(model, schema, name)
    if any(json.pieces) or not isinstance(json.columns[0], F):
        raise ImproperlyConfigured(
            f"{schema.__name__}.{name} is an object or a list: groups are by a column. Name one of it, as in "
            f'`{name}_id: Annotated[int, Field(alias="{name}.id")]`.'
        )
    [(writer, nullable)] = json.writers
    return name, writer, nullable


def _member(
    expression: Any, model: type[Model], schema: type[BaseModel], name: str, *, is_grouped: bool
) -> Member:
    """A field of the schema that is an aggregate of rows of `model`.

    `is_grouped`: the aggregate is of a group, so of at least one row. Raises ImproperlyConfigured if Postgres cannot
    write the value as the schema prints it.
    """
    has_default = isinstance(expression, Coalesce)  # which Sum("x", default=0) becomes
    aggregate = expression.get_source_expressions()[0] if has_default else expression
    if not isinstance(aggregate, Count | Min | Max | Sum | Avg):
        raise ImproperlyConfigured(
            f"{schema.__name__}.{name}: {aggregate} is no Count, Min, Max, Sum or Avg."
        )
    if isinstance(aggregate, Count):
        return name, json_sql(WHOLE, schema, name), False
    field = getattr(aggregate.get_source_expressions()[0], "target", None)
    if field is None:
        raise ImproperlyConfigured(f"{schema.__name__}.{name}: {aggregate} is not over a field.")
    is_own = field.model._meta.concrete_model is model._meta.concrete_model  # a related row may be missing
    has_value = (
        is_grouped and is_own and not (aggregate.filter or field.null or getattr(field, "generated", False))
    )
    nullable = not has_default and not has_value
    if nullable:
        try:
            schema.__pydantic_validator__.validate_assignment(schema.model_construct(), name, None)
        except ValidationError:
            raise ImproperlyConfigured(
                f"{schema.__name__}.{name} is null where there are no rows or only nulls: let it be so."
            ) from None
    return name, _json_of(aggregate, field, schema, name), nullable


def _json_of(aggregate: Any, field: Any, schema: type[BaseModel], name: str) -> JsonSql:
    """The SQL of the value of a Min, Max, Sum or Avg over `field`."""
    field, result = _plain(field), _plain(aggregate.output_field)
    kind, kind_of_result = field.get_internal_type(), result.get_internal_type()
    is_integer = kind.endswith(INTEGERS)
    if isinstance(aggregate, Avg):
        if kind_of_result == "FloatField" and (is_integer or kind in {"FloatField", "DecimalField"}):
            return choose([FLOAT], FLOAT_SAMPLES, schema, name, of=str(aggregate))
        if kind_of_result == "DecimalField" and (is_integer or kind == "DecimalField"):
            return choose(DECIMALS, DECIMAL_SAMPLES, schema, name, of=str(aggregate))
    elif kind_of_result == kind:
        if isinstance(aggregate, Min | Max) and kind not in WITHOUT_ORDER:
            return json_sql(field, schema, name)
        if isinstance(aggregate, Sum) and is_integer:
            return json_sql(WHOLE, schema, name)
        if isinstance(aggregate, Sum) and kind in {"FloatField", "DecimalField"}:
            return json_sql(field, schema, name)
    raise ImproperlyConfigured(
        f"{schema.__name__}.{name}: Postgres cannot write {aggregate} of a {kind} as a {kind_of_result}."
    )


def _plain(field: Any) -> Any:
    """Return the field from which a foreign key or a generated field takes its values; else the field itself."""
    field = target_of(field)
    return getattr(field, "output_field", None) or field
