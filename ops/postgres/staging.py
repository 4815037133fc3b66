"""How a stream of NDJSON or CSV becomes rows: by statements in which Postgres reads, checks and casts all lines.

    plan = Staging(Insert(Product, ProductOut), ProductOut)    # when the resource is declared

ops/postgres/load.py runs the statements. They refuse the values that the POST of a single row refuses: the conditions
follow from the schema and the columns.

| temporary table | a row is | its columns |
| --------------- | -------- | ----------- |
| "import lines"  | a line as it came | `line`; `doc`, the text of NDJSON, or `c0`, `c1`, ... the cells of CSV |
| "import rows"   | a line as a row | "import line"; "import fault", null for a good line; the target table's own |

The first conversion casts each text that has the right form, and fails at the first that the cast refuses, such as
2020-02-31. Then the stream is converted a second time, and Postgres is asked before each cast whether it will succeed
(docs/decisions/0023-import.md has the figures).
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
from django.db import connection as django_connection
from django.db.models import Expression
from pydantic import BaseModel, PlainSerializer, WithJsonSchema
from pydantic.fields import FieldInfo

from ops.postgres.commands import Column, Insert, sql_of
from ops.postgres.json_sql import choices_of, target_of
from ops.postgres.statement import Statement, literal

LEAST_VERSION = 16  # of Postgres: the first with pg_input_is_valid and IS JSON
MAX_DEPTH = 64  # levels of a JSON value, as for single rows
# Opening brackets in a line of NDJSON, or in a cell of CSV. Thousands of levels exceed Postgres's stack, and the
# error then names no line.
MAX_BRACKETS = 4000

# Conditions on {t}, the text of a value, and {v}, the value.
INTEGER = "{t} ~ '^-?[0-9]+([.]0+)?$'"
NUMBER = "{t} ~ '^[+-]?([0-9]+[.]?[0-9]*|[.][0-9]+)([eE][+-]?[0-9]+)?$'"
DATE = "{t} ~ '^[0-9]{4}-[0-9]{2}-[0-9]{2}$'"
TIME = "{t} ~ '^([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9]([.][0-9]+)?)?$'"
LEAP = f"{'_' * 17}60%"  # for LIKE: a moment with a leap second, which ends a month
# A moment of RFC 3339. The regular expression takes Postgres 2 us, so the usual forms are looked for first, which
# takes less than half. If a form is left without the digits, all other places hold digits. LIKE alone does not tell
# that, and Postgres also reads 1q as a day.
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
# Python has the years 1 to 9999. In UTC and rounded, a moment of the first or last year may fall outside of them.
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
# By Django's internal type and the schema's type: the JSON type that a value must have, if the text does not show it,
# and the condition on the text, if Postgres would take other forms, too.
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
    "TimeField": ("{v} < '24:00'",),  # 23:59:59.9999999 is rounded to 24:00
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
ELSEWHERE = (  # annotations and validators that restrict no value, or only as other conditions do
    *(PlainSerializer, WithJsonSchema),
    *(validators.DecimalValidator, validators.ProhibitNullCharactersValidator),
)


@dataclass(frozen=True, slots=True)
class Cell:
    """A field that lines may have, with the conditions on its text and value.

    In its methods, `header` has the names of CSV's cells, or is None for NDJSON; `text` is SQL of the field's text.
    """

    name: str
    column: Column
    type: str  # SQL type to which the text is cast; empty if the value is the text
    json: str  # JSON type that the value must have; empty if the text shows it
    spelling: str  # condition on the text; not tested in NDJSON if `json` is set
    rules: str  # conditions on the value or the text, joined by AND; may be empty
    default: str | None  # SQL of the value if a line leaves the field out; None if no line may leave it out

    @property
    def target(self) -> Any:
        """The related model's field by which the value names a row; None if the column is no relation."""
        field = self.column.field
        return self.column.related or (field.target_field if field.is_relation else None)

    def text(self, header: Sequence[str] | None) -> str:
        """Return SQL of the field's text in a line, of a JSON column in NDJSON as jsonb; NULL if absent or null."""
        if header is not None:
            return f"c{header.index(self.name)}" if self.name in header else "NULL::text"
        if self.type == "jsonb":
            return f"NULLIF(j -> {literal(self.name)}, 'null')"
        return f"j ->> {literal(self.name)}"

    def is_absent(self, text: str, header: Sequence[str] | None) -> str:
        """Return SQL for whether the line leaves the field out, as an empty cell does if the column takes no null."""
        if header is None:
            return f"({text} IS NULL AND NOT j ? {literal(self.name)})"
        return f"({text} IS NULL)" if self.name not in header or not self.column.field.null else "false"

    def condition(self, text: str, header: Sequence[str] | None, *, tests_first: bool) -> str:
        """Return SQL for whether the text is a valid value. With `tests_first`, no text makes that SQL fail."""
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
                # Most numbers are as Postgres writes them. A comparison takes half the time of a regular expression.
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
                # JSON Schema counts 7.0 as an integer, and clients that have only floats send it for 7.
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
        """Return SQL that casts the text to the type. With `tests_first`, an integer may be written as 7.0.

        The direct cast is quicker, and makes the first conversion fail at 7.0.
        """
        if self.type in INTEGER_TYPES and tests_first:
            return f"{text}::numeric::{self.type}"
        if self.type == "jsonb":
            return f"NULLIF({text}::jsonb, 'null')"
        return f"{text}::{self.type}" if self.type else text


def _brackets(text: str) -> str:
    """Return SQL that counts the opening brackets [ and { in a text."""
    return f"octet_length({text}) - octet_length(translate({text}, '[{{', ''))"


class Staging:
    """The statements that make rows for the table of `insert` from the lines of a stream.

    Raises ImproperlyConfigured if Postgres alone cannot do it: for a default that Python computes for each row, or a
    rule that only Python can test.
    """

    def __init__(self, insert: Insert, schema: type[BaseModel]) -> None:
        self.model = insert.model
        self.table = _quote(self.model._meta.db_table)
        sources = dict(insert.sources)
        shown = [column for name, column in insert.columns.items() if name in schema.model_fields]
        self.cells = [
            _cell(schema, column, sources.pop(column.field, None), insert.defaults) for column in shown
        ]
        # Fields of a row that no line has, with the SQL of their values.
        self.others = {
            field: _default(field, source, insert.defaults, field) for field, source in sources.items()
        }
        filled = (*(cell.column.field for cell in self.cells), *self.others)
        self.columns = [str(field.column) for field in filled]

    def _judged(self, header: Sequence[str] | None, source: str, *, tests_first: bool) -> str:
        """Return SQL that reads from each line the texts t0, t1, ... of its cells, and tests them: o0, o1, ...

        `source` is SQL of the lines. The boolean o0 tells whether t0 is valid, and `ok` whether NDJSON's line is an
        object without unknown members. OFFSET 0 makes Postgres compute each level once.
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
        """Return SQL that makes "import rows" of "import lines". `header` is CSV's, or None for NDJSON.

        With `tests_first`, a text whose cast would fail marks its line. Without, it makes the statement fail.
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

        # Bits: 1 for a line that is wrong by itself, 2 << n if cell n names a row that is not there.
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
        """Return SQL that gives, for each of these lines, the places of its invalid cells in `self.cells`.

        A line of NDJSON that is no readable object has no cells, and is left out.
        """
        some = f'SELECT * FROM "import lines" WHERE line = ANY({literal(lines)})'
        judged = self._judged(header, some, tests_first=True)
        places = ", ".join(f"CASE WHEN o{at} THEN NULL ELSE {at} END" for at in range(len(self.cells)))
        has_fields = "j IS NOT NULL" if header is None else "true"
        return (
            f"SELECT line, array_remove(ARRAY[{places}]::int[], NULL) FROM ({judged}) AS l WHERE {has_fields}"
        )


def _cell(schema: type[BaseModel], column: Column, source: Any, defaults: Mapping[str, Any]) -> Cell:
    """Return the Cell of a column. Raises ImproperlyConfigured for a type or a rule that Postgres cannot test.

    `source` gives the value in a line that leaves the field out; None if no line may.
    """
    name = f"{schema.__name__}.{column.name}"
    field = target_of(column.related or column.field)
    info = schema.model_fields[column.name]
    kind, annotations = _unwrapped(info.annotation)
    # If a value names a related row, the choices and validators of the field by which it does so do not apply. The
    # rules of that field's type, such as a length, and the rules in the schema do.
    choices = [] if column.related else choices_of(field)
    if get_origin(kind) is Literal or (isinstance(kind, type) and issubclass(kind, enum.Enum)):
        members = get_args(kind) or kind
        choices = [one.value if isinstance(one, enum.Enum) else one for one in members if one is not None]
        kind = next(map(type, choices), types.NoneType)
    known = KINDS.get((field.get_internal_type(), get_origin(kind) or kind))
    if known is None or get_args(kind) not in ((), (str, Any), (Any,)):
        raise ImproperlyConfigured(f"{name}: an import cannot read a {kind} for {field}.")
    annotations = [*annotations, *info.metadata]
    if not column.related:
        annotations += field.validators
    rules = dict.fromkeys(_rules(field, annotations, choices, name))
    default = None
    if source is not None:
        if column.related and isinstance(source, Expression):
            raise ImproperlyConfigured(f"{name}: an import needs a value as its default, not an expression.")
        default = _default(column.field, source, defaults, field)
    is_text = field.get_internal_type() in TEXTS
    return Cell(
        name=column.name,
        column=column,
        type="" if is_text else field.rel_db_type(django_connection),
        json=known[0],
        spelling=known[1],
        rules=" AND ".join(f"({rule})" for rule in rules),
        default=default,
    )


def _rules(field: Any, annotations: Sequence[Any], choices: Sequence[Any], name: str) -> Iterator[str]:
    """Yield the conditions on a value: of the field's type, of `annotations`, validators among them, of choices."""
    internal = field.get_internal_type()
    yield from RULES.get(internal, ())
    if internal in TEXTS:
        if not (field.blank or field.choices):
            yield "{t} <> ''"
        if field.max_length:
            yield f"char_length({{t}}) <= {field.max_length}"
    elif internal == "DecimalField":
        yield f"scale(trim_scale({{t}}::numeric)) <= {field.decimal_places}"
    # The attributes of a schema's Field(max_digits=..., decimal_places=...) that repeats the column's digits, which
    # the cast and the condition on the scale test.
    digits = {name: getattr(field, name, None) for name in ("max_digits", "decimal_places")}
    for each in annotations:
        if not isinstance(each, ELSEWHERE) and getattr(each, "__dict__", None) != digits:
            yield from _rule(each, field, name)
    if choices:
        yield f"{{v}} IN ({', '.join(map(literal, choices))})"


def _rule(annotation: Any, field: Any, name: str) -> Iterator[str]:
    """Yield the condition of an annotation or validator, if it needs one.

    Raises ImproperlyConfigured if Postgres cannot test it.
    """
    internal = field.get_internal_type()
    comparisons = OF_TEXTS if internal in TEXTS else {} if internal == "JSONField" else OF_VALUES
    attribute, condition = comparisons.get(type(annotation), ("", ""))
    least, most = INTEGER_TYPES.get(field.rel_db_type(django_connection), (None, None))
    if annotation is validators.validate_slug:
        yield f"{SLUG} OR {{t}} = ''" if field.blank else SLUG
    elif not condition or callable(bound := getattr(annotation, attribute)):
        raise ImproperlyConfigured(
            f"{name}: an import cannot apply {annotation!r}, which only Python can. Use a CheckConstraint instead: "
            "it holds for all writers."
        )
    # The cast itself tests the ends of an integer type.
    elif (condition, bound) not in (("{v} >= ", least), ("{v} <= ", most)):
        yield condition + literal(bound)


def _unwrapped(annotation: Any) -> tuple[Any, list[Any]]:
    """Return a type without `| None` and Annotated, and the metadata of its Annotated."""
    if get_origin(annotation) is Annotated:
        kind, *metadata = get_args(annotation)
        inner, more = _unwrapped(kind)
        return inner, [
            *more,
            *(m for one in metadata for m in (one.metadata if isinstance(one, FieldInfo) else [one])),
        ]
    if get_origin(annotation) in (Union, types.UnionType):
        kinds = [each for each in get_args(annotation) if each is not types.NoneType]
        if len(kinds) == 1:
            return _unwrapped(kinds[0])
    return annotation, []


def _default(field: Any, source: Any, defaults: Mapping[str, Any], typed_by: Any) -> str:
    """Return SQL of the value of `field` in a line that leaves it out.

    `source` and `defaults` are those of the insert. `typed_by` is the field by which the value is prepared and cast:
    for a relation, the related row's field. Raises ImproperlyConfigured if Postgres cannot compute the value.
    """
    if isinstance(source, Expression):
        text = Statement(*sql_of(field.model, source)).sql.decode()
    else:
        own = field.default if field.has_default() else None
        given = next((defaults[name] for name in (field.name, field.attname) if name in defaults), own)
        if callable(given) and given not in (dict, list):
            raise ImproperlyConfigured(
                f"{field}: an import cannot call {getattr(given, '__name__', given)}() for each row. Give "
                "`defaults` a database expression for it, such as Now()."
            )
        if source is None:
            raise ImproperlyConfigured(f"{field}: Postgres cannot fill it.")
        text = literal(typed_by.get_db_prep_save(source(), django_connection))
    return f"CAST({text} AS {typed_by.rel_db_type(django_connection)})"


def _quote(name: str) -> str:
    return str(django_connection.ops.quote_name(name))
