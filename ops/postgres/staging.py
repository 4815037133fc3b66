"""How a stream of NDJSON or CSV becomes rows: by statements in which Postgres reads, checks and casts all of them.

    plan = Staging(Insert(Product, ProductOut), ProductOut)    # when the resource is declared

ops/postgres/load.py runs them. They refuse what is refused in a single row: the conditions follow from the schema and
the columns.

| temporary table | a row is | its columns |
| --------------- | -------- | ----------- |
| "import lines"  | a line as it came | `line`; `doc`, the text of NDJSON, or `c0`, `c1`, ... the cells of CSV |
| "import rows"   | the same as a row | "import line"; "import fault", null for a good one; the table's own |

The first conversion tests no cast, and fails at the first text that a cast refuses. The second, for a stream that has
one, tests each before the cast (docs/decisions/0023-import.md has the figures).
"""

import datetime
import enum
import types
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
from django.core import validators
from django.core.exceptions import ImproperlyConfigured
from django.db import connection as djangos
from django.db.models import Expression
from pydantic import BaseModel, PlainSerializer, WithJsonSchema
from pydantic.fields import FieldInfo

from ops.postgres.commands import Column, Insert, sql_of
from ops.postgres.json_sql import choices_of, target_of
from ops.postgres.statement import Statement, literal

LEAST_VERSION = 16  # of Postgres: pg_input_is_valid, IS JSON
MAX_DEPTH = 64  # of a JSON value, as for single rows
# Brackets of a line, or of a cell. Thousands of levels exceed Postgres's stack, which is an error that names no line.
MAX_BRACKETS = 4000

# Conditions on {t}, the text of a value, and {v}, the value.
INTEGER = "{t} ~ '^-?[0-9]+([.]0+)?$'"
NUMBER = "{t} ~ '^[+-]?([0-9]+[.]?[0-9]*|[.][0-9]+)([eE][+-]?[0-9]+)?$'"
DATE = "{t} ~ '^[0-9]{4}-[0-9]{2}-[0-9]{2}$'"
TIME = "{t} ~ '^([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9]([.][0-9]+)?)?$'"
LEAP = f"{'_' * 17}60%"  # the form of a leap second, which ends a month
# RFC 3339. The expression takes Postgres 2 us, so its usual forms are looked for first, which takes less than half.
# A form without its digits tells that there are digits in all other places: Postgres reads 1q as a day, too.
MOMENT = (
    "CASE WHEN CASE translate({t}, '0123456789', '')"
    " WHEN '--T::.+:' THEN {t} LIKE '____-__-__T__:__:__._%+00:00'"
    " WHEN '--T::+:' THEN {t} LIKE '____-__-__T__:__:__+00:00'"
    " WHEN '--T::.Z' THEN {t} LIKE '____-__-__T__:__:__._%Z'"
    " WHEN '--T::Z' THEN {t} LIKE '____-__-__T__:__:__Z' END"
    f" AND {{t}} NOT LIKE '{'_' * 11}24%' AND {{t}} NOT LIKE '{LEAP}' THEN true ELSE {{t}} ~"
    " '^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt]([01][0-9]|2[0-3]):[0-5][0-9]:([0-5][0-9]|60)([.][0-9]+)?"
    "([Zz]|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$' END"
)
# In UTC and rounded, moments of the first and the last year may be in one that Python lacks.
IN_YEARS = "{t} COLLATE \"C\" BETWEEN '0002' AND '9999' OR {v} >= '0001-01-01Z' AND {v} < '10000-01-01Z'"
ENDS_MONTH = f"{{t}} NOT LIKE '{LEAP}' OR {{v}} = date_trunc('month', {{v}}, 'UTC')"
DEPTH = f"""({{v}} @? 'strict $.**{{{MAX_DEPTH - 1}}} ? (@.type() == "object" || @.type() == "array")') IS NOT TRUE"""
SLUG = "{t} ~ '^[-a-zA-Z0-9_]+$'"

INTEGERS = frozenset(
    prefix + name for prefix in ("", "Small", "Big", "Positive", "PositiveSmall", "PositiveBig")
    for name in ("IntegerField", "AutoField")
)  # fmt: skip
INTEGER_TYPES = {
    name: (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    for name, bits in (("smallint", 16), ("integer", 32), ("bigint", 64))
}
TEXTS = frozenset(("CharField", "TextField", "SlugField"))
# By Django's internal type and the schema's: the JSON type, if the text does not show it, and the text's form, if
# Postgres would take other forms.
KINDS: Mapping[tuple[str, Any], tuple[str, str]] = {
    ("DecimalField", Decimal): ("", NUMBER),
    ("FloatField", float): ("number", NUMBER),
    ("BooleanField", bool): ("boolean", "{t} IN ('true', 'false')"),
    ("UUIDField", uuid.UUID): ("", "{t} LIKE '________-____-____-____-____________'"),
    ("DateField", datetime.date): ("", DATE),
    ("TimeField", datetime.time): ("", TIME),
    ("DateTimeField", datetime.datetime): ("", MOMENT),
    ("JSONField", dict): ("object", ""),
    ("JSONField", list): ("array", ""),
    ("JSONField", Any): ("", ""),
    **{(name, int): ("number", INTEGER) for name in INTEGERS},
    **{(name, str): ("string", "") for name in TEXTS},
}
RULES: Mapping[str, Sequence[str]] = {
    "DateTimeField": (IN_YEARS, ENDS_MONTH),
    "TimeField": ("{v} < '24:00'",),  # which 23:59:59.9999999 is rounded to
    "JSONField": (DEPTH,),
}
# By the type of an annotation or a validator: its attribute with the bound, and the comparison with that.
OF_VALUES: Mapping[type, tuple[str, str]] = {
    annotated_types.Ge: ("ge", "{v} >= "),
    annotated_types.Gt: ("gt", "{v} > "),
    annotated_types.Le: ("le", "{v} <= "),
    annotated_types.Lt: ("lt", "{v} < "),
    validators.MinValueValidator: ("limit_value", "{v} >= "),
    validators.MaxValueValidator: ("limit_value", "{v} <= "),
}
OF_TEXTS: Mapping[type, tuple[str, str]] = {  # Python and Postgres do not agree on the order of two texts
    annotated_types.MinLen: ("min_length", "char_length({t}) >= "),
    annotated_types.MaxLen: ("max_length", "char_length({t}) <= "),
    validators.MinLengthValidator: ("limit_value", "char_length({t}) >= "),
    validators.MaxLengthValidator: ("limit_value", "char_length({t}) <= "),
}
ELSEWHERE = (  # what says nothing of values, or is said by other conditions
    *(PlainSerializer, WithJsonSchema),
    *(validators.DecimalValidator, validators.ProhibitNullCharactersValidator),
)


@dataclass(frozen=True, slots=True)
class Cell:
    """A field that lines have."""

    name: str
    column: Column
    type: str  # of its value, to which its text is cast; empty if it stays a text
    json: str  # its type in JSON, where the text does not tell it
    spelling: str  # the condition on its text, except in NDJSON where `json` is set
    rules: str  # and on the value
    default: str | None  # the SQL of the value where a line leaves the field out; None: it may not

    @property
    def target(self) -> Any:
        """The column of another table by which its value names a row, if the field is a relation."""
        field = self.column.field
        return self.column.related or (field.target_field if field.is_relation else None)

    def text(self, header: Sequence[str] | None) -> str:
        """The SQL of the field's text in a line (of a document, its JSON); null if the line lacks it."""
        if header is not None:
            return f"c{header.index(self.name)}" if self.name in header else "NULL::text"
        if self.type == "jsonb":
            return f"NULLIF(j -> {literal(self.name)}, 'null')"
        return f"j ->> {literal(self.name)}"

    def is_absent(self, text: str, header: Sequence[str] | None) -> str:
        """The SQL of whether the line leaves the field out. An empty cell does so where it cannot be a null."""
        if header is None:
            return f"({text} IS NULL AND NOT j ? {literal(self.name)})"
        return f"({text} IS NULL)" if self.name not in header or not self.column.field.null else "false"

    def condition(self, text: str, header: Sequence[str] | None, *, tests_first: bool) -> str:
        """The SQL of whether the text is a value. With `tests_first`, no text makes it fail."""
        nothing = (
            "true"
            if self.column.field.null
            else "false"
            if self.default is None
            else self.is_absent(text, header)
        )
        cases = [f"WHEN {text} IS NULL THEN {nothing}"]
        if self.json and header is None:
            cases.append(f"WHEN jsonb_typeof(j -> {literal(self.name)}) <> {literal(self.json)} THEN false")
        if self.spelling and not (header is None and self.json):
            spelled = self.spelling.replace("{t}", text)
            if not tests_first and (self.type in INTEGER_TYPES or self.type.startswith("numeric")):
                # Most numbers are as Postgres writes them. To compare takes half the time of a regular expression.
                as_written = f"{self.value(text, tests_first=False)}::text = {text} AND {text} <> 'NaN'"
                spelled = f"{as_written} OR {spelled}"
            cases.append(f"WHEN NOT ({spelled}) THEN false")
        if header is not None and self.type == "jsonb":
            if tests_first:
                cases.append(f"WHEN {_brackets(text)} > {MAX_BRACKETS} THEN false")
            cases.append(f"WHEN {text} IS NOT JSON WITH UNIQUE KEYS THEN false")
        if tests_first and self.type and not (header is None and self.type == "jsonb"):
            is_valid = f"pg_input_is_valid({text}, {literal(self.type)})"
            if self.type in INTEGER_TYPES:
                low, high = INTEGER_TYPES[self.type]
                # 7.0 is an integer to JSON Schema, and to clients whose numbers are all floats.
                number = f"{text}::numeric"
                is_valid = (
                    f"CASE WHEN pg_input_is_valid({text}, 'numeric')"
                    f" THEN {number} = trunc({number}) AND {number} BETWEEN {low} AND {high} ELSE false END"
                )
            cases.append(f"WHEN NOT {is_valid} THEN false")
        if header is not None and self.type == "jsonb":
            wanted = [self.json] if self.json else ["object", "array", "string", "number", "boolean"]
            wanted += ["null"] if self.column.field.null else []
            cases.append(f"WHEN jsonb_typeof({text}::jsonb) <> ALL({literal(wanted)}) THEN false")
        rules = self.rules.replace("{t}", text).replace("{v}", self.value(text, tests_first=tests_first))
        return f"CASE {' '.join(cases)} ELSE {rules or 'true'} END"

    def value(self, text: str, *, tests_first: bool) -> str:
        if self.type in INTEGER_TYPES and tests_first:
            return f"{text}::numeric::{self.type}"
        if self.type == "jsonb":
            return f"NULLIF({text}::jsonb, 'null')"
        return f"{text}::{self.type}" if self.type else text


def _brackets(text: str) -> str:
    """The SQL of how many brackets a text opens."""
    return f"octet_length({text}) - octet_length(translate({text}, '[{{', ''))"


class Staging:
    """The statements by which an insert's table is filled.

    Raises ImproperlyConfigured for what Postgres cannot do by itself: a default that Python computes for each row, a
    rule of a field that only Python knows.
    """

    def __init__(self, insert: Insert, schema: type[BaseModel]) -> None:
        self.model = insert.model
        self.table = _quote(self.model._meta.db_table)
        sources = dict(insert.sources)
        shown = [column for name, column in insert.columns.items() if name in schema.model_fields]
        self.cells = [
            _cell(schema, column, sources.pop(column.field, None), insert.defaults) for column in shown
        ]
        # Fields that no line has, with the SQL of their value.
        self.others = {
            field: _default(field, source, insert.defaults, field) for field, source in sources.items()
        }
        filled = (*(cell.column.field for cell in self.cells), *self.others)
        self.columns = [str(field.column) for field in filled]

    def _judged(self, header: Sequence[str] | None, source: str, *, tests_first: bool) -> str:
        """SQL of lines, with the text of each cell, t0, t1, ..., and whether it is a value: o0, o1, ...

        OFFSET 0 has each level computed once.
        """
        cells = self.cells
        if header is None:
            is_object, document = "doc IS JSON OBJECT WITH UNIQUE KEYS", "doc::jsonb"
            if tests_first:
                is_object = f"CASE WHEN {_brackets('doc')} <= {MAX_BRACKETS} THEN {is_object} ELSE false END"
                document = "CASE WHEN is_object AND pg_input_is_valid(doc, 'jsonb') THEN doc::jsonb END"
            lines = f"SELECT line, doc, {is_object} AS is_object FROM ({source}) AS l OFFSET 0"
            lines = f"SELECT line, is_object, {document} AS j FROM ({lines}) AS l OFFSET 0"
            known = ", ".join(literal(cell.name) for cell in cells)
            whole = f"is_object AND j - ARRAY[{known}]::text[] = '{{}}' AS ok, j"
        else:
            lines, whole = source, "true AS ok"
        texts = "".join(f", {cell.text(header)} AS t{at}" for at, cell in enumerate(cells))
        read = f"SELECT line, {whole}{texts} FROM ({lines}) AS l OFFSET 0"

        conditions = "".join(
            f", {cell.condition(f't{at}', header, tests_first=tests_first)} AS o{at}"
            for at, cell in enumerate(cells)
        )
        return f"SELECT *{conditions} FROM ({read}) AS l OFFSET 0"

    def conversion(self, header: Sequence[str] | None, *, tests_first: bool) -> str:
        """SQL that makes "import rows" of "import lines": of CSV with this header, or of NDJSON.

        With `tests_first`, a text that is no value marks its line. Without, its cast may fail.
        """
        cells, judged = self.cells, self._judged(header, 'TABLE "import lines"', tests_first=tests_first)
        values = ""
        for at, cell in enumerate(cells):
            cases = f"WHEN o{at} THEN {cell.value(f't{at}', tests_first=tests_first)}"
            if cell.default is not None:
                cases = f"WHEN {cell.is_absent(f't{at}', header)} THEN {cell.default} {cases}"
            values += f", CASE {cases} END AS v{at}"
        is_good = " AND ".join(("ok", *(f"o{at}" for at in range(len(cells)))))
        cast = f"SELECT line, coalesce({is_good}, false) AS ok{values} FROM ({judged}) AS l OFFSET 0"

        fault, columns, joins = "(NOT ok)::int", "", ""
        for at, cell in enumerate(cells):
            value = f"v{at}"
            if target := cell.target:
                value = f"r{at}.{_quote(cell.column.field.target_field.column)}"
                joins += f" LEFT JOIN {_quote(target.model._meta.db_table)} AS r{at}"
                joins += f" ON r{at}.{_quote(target.column)} = v{at}"
                fault += f" + {2 << at} * (v{at} IS NOT NULL AND {value} IS NULL)::int"
            columns += f", {value} AS {_quote(cell.column.field.column)}"
        columns += "".join(f", {value} AS {_quote(field.column)}" for field, value in self.others.items())
        return (
            'CREATE TEMP TABLE "import rows" ON COMMIT DROP AS SELECT line AS "import line",'
            f' NULLIF({fault}, 0) AS "import fault"{columns} FROM ({cast}) AS l{joins}'
        )

    def refused(self, header: Sequence[str] | None, lines: Sequence[int]) -> str:
        """SQL that lists the wrong cells, by place, for each of these lines that has fields."""
        some = f'SELECT * FROM "import lines" WHERE line = ANY({literal(lines)})'
        judged = self._judged(header, some, tests_first=True)
        places = ", ".join(f"CASE WHEN o{at} THEN NULL ELSE {at} END" for at in range(len(self.cells)))
        has_fields = "j IS NOT NULL" if header is None else "true"
        return (
            f"SELECT line, array_remove(ARRAY[{places}]::int[], NULL) FROM ({judged}) AS l WHERE {has_fields}"
        )


def _cell(schema: type[BaseModel], column: Column, source: Any, defaults: Mapping[str, Any]) -> Cell:
    """Raises ImproperlyConfigured for a type or a rule that Postgres does not know."""
    name = f"{schema.__name__}.{column.name}"
    field = target_of(column.related or column.field)
    info = schema.model_fields[column.name]
    kind, said = _unwrapped(info.annotation)
    # Of a relation, which row it names is all that counts, beside what the schema says.
    choices = [] if column.related else choices_of(field)
    if get_origin(kind) is Literal or (isinstance(kind, type) and issubclass(kind, enum.Enum)):
        members = get_args(kind) or kind
        choices = [one.value if isinstance(one, enum.Enum) else one for one in members if one is not None]
        kind = next(map(type, choices), types.NoneType)
    known = KINDS.get((field.get_internal_type(), get_origin(kind) or kind))
    if known is None or get_args(kind) not in ((), (str, Any), (Any,)):
        raise ImproperlyConfigured(f"{name}: an import cannot read a {kind} for {field}.")
    said = [*said, *info.metadata]
    if not column.related:
        said += field.validators
    rules = dict.fromkeys(_rules(field, said, choices, name))
    default = None
    if source is not None:
        if column.related and isinstance(source, Expression):
            raise ImproperlyConfigured(f"{name}: an import needs a value as its default, not an expression.")
        default = _default(column.field, source, defaults, field)
    is_text = field.get_internal_type() in TEXTS
    return Cell(
        name=column.name,
        column=column,
        type="" if is_text else field.rel_db_type(djangos),
        json=known[0],
        spelling=known[1],
        rules=" AND ".join(f"({rule})" for rule in rules),
        default=default,
    )


def _rules(field: Any, said: Sequence[Any], choices: Sequence[Any], name: str) -> Iterator[str]:
    """The conditions on a value: by the column, by what the schema and the validators have said, by its choices."""
    internal = field.get_internal_type()
    yield from RULES.get(internal, ())
    if internal in TEXTS:
        if not (field.blank or field.choices):
            yield "{t} <> ''"
        if field.max_length:
            yield f"char_length({{t}}) <= {field.max_length}"
    elif internal == "DecimalField":
        yield f"scale(trim_scale({{t}}::numeric)) <= {field.decimal_places}"
    # What a schema says of a decimal with the column's digits.
    digits = {name: getattr(field, name, None) for name in ("max_digits", "decimal_places")}
    for each in said:
        if not isinstance(each, ELSEWHERE) and getattr(each, "__dict__", None) != digits:
            yield from _rule(each, field, name)
    if choices:
        yield f"{{v}} IN ({', '.join(map(literal, choices))})"


def _rule(said: Any, field: Any, name: str) -> Iterator[str]:
    """The condition that one annotation or validator means. Raises ImproperlyConfigured if Postgres cannot know."""
    internal = field.get_internal_type()
    comparisons = OF_TEXTS if internal in TEXTS else {} if internal == "JSONField" else OF_VALUES
    attribute, condition = comparisons.get(type(said), ("", ""))
    least, most = INTEGER_TYPES.get(field.rel_db_type(djangos), (None, None))
    if said is validators.validate_slug:
        yield f"{SLUG} OR {{t}} = ''" if field.blank else SLUG
    elif not condition or callable(bound := getattr(said, attribute)):
        raise ImproperlyConfigured(
            f"{name}: an import cannot ask {said!r}, which only Python knows. A CheckConstraint in its place holds "
            "for all writers."
        )
    elif (condition, bound) not in (("{v} >= ", least), ("{v} <= ", most)):  # else the cast knows it
        yield condition + literal(bound)


def _unwrapped(annotation: Any) -> tuple[Any, list[Any]]:
    """A type without `| None`, and what Annotated says of it."""
    if get_origin(annotation) is Annotated:
        kind, *said = get_args(annotation)
        inner, more = _unwrapped(kind)
        return inner, [
            *more,
            *(m for one in said for m in (one.metadata if isinstance(one, FieldInfo) else [one])),
        ]
    if get_origin(annotation) in (Union, types.UnionType):
        kinds = [each for each in get_args(annotation) if each is not types.NoneType]
        if len(kinds) == 1:
            return _unwrapped(kinds[0])
    return annotation, []


def _default(field: Any, source: Any, defaults: Mapping[str, Any], valued: Any) -> str:
    """The SQL of the value of a field that a line leaves out. `valued` is the field that has its type."""
    if isinstance(source, Expression):
        text = Statement(*sql_of(field.model, source)).sql.decode()
    else:
        own = field.default if field.has_default() else None
        given = next((defaults[name] for name in (field.name, field.attname) if name in defaults), own)
        if callable(given) and given not in (dict, list):
            raise ImproperlyConfigured(
                f"{field}: an import cannot call {getattr(given, '__name__', given)}() for each row. Give "
                "`defaults` an expression of it, which Postgres computes."
            )
        if source is None:
            raise ImproperlyConfigured(f"{field}: Postgres cannot fill it.")
        text = literal(valued.get_db_prep_save(source(), djangos))
    return f"CAST({text} AS {valued.rel_db_type(djangos)})"


def _quote(name: str) -> str:
    return str(djangos.ops.quote_name(name))
