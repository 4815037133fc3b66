"""SQL that writes a model field's value as the JSON of answers: the schema's own text, or a number equal to it.

The schema is the author of the JSON. For each type of column there are candidates (`JsonSql`), the cheapest first: an
SQL expression, and a function in Python that returns the same text. Sample values are printed through the schema, and
the first candidate that gives equal JSON is chosen. If there is none, the field is refused when it is declared. A
field with bounds that exclude all samples is also refused if it may convert values, unless its own examples show how.

An example: `low_price = DecimalField(max_digits=7, decimal_places=2)` has the samples -12.5, 0.01, 0, 1, 2, 5 and 10.

| in the schema      | prints   | candidate 1, a string | candidate 2, a number   | chosen                        |
| low_price: Decimal | "-12.50" | "-12.50", the same    |                         | 1: `{}` between double quotes |
| low_price: float   | -12.5    | "-12.50", different   | -12.50, an equal number | 2: `{}::text`, null for NaN   |
| low_price: int     | 0        | "0.00", different     | 0.00, no integer        | none: ImproperlyConfigured    |

(An int takes only the samples without a fraction.) With a Decimal, the SQL of `{"low_price":"12.50"}` is
`'{"low_price":"' || low_price || '"}'`.
"""

import datetime
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from decimal import Context, Decimal, InvalidOperation
from functools import cache
from typing import Annotated, Any

import orjson
from django.core.exceptions import ImproperlyConfigured
from django.db import models
from pydantic import BaseModel, Field, TypeAdapter, ValidationError


@dataclass(frozen=True, slots=True)
class JsonSql:
    """SQL for a value that is not null, between two literal texts. `{}` is the column."""

    sql: str
    python: Callable[[Any], str]  # makes of a sample the JSON that Postgres writes
    quotes: tuple[str, str] = ("", "")  # JSON text before and after every value, such as double quotes
    plain: str = (
        ""  # SQL of a cell of CSV, which is NULL where JSON has null; empty if `sql` serves there, too
    )
    is_text: bool = False  # whether the value is text that a client may have chosen freely
    may_lose: bool = False  # whether a reader that makes a double of the number may lose digits of it

    def text(self, column: str, *, nullable: bool) -> tuple[str, str, str]:
        """Return the text before the column, the column's SQL, and the text after it.

        The texts are not SQL yet: the caller joins them with the constant text beside them, and makes SQL literals of
        that. For a nullable column both are empty, and the SQL itself writes them, or null.
        """
        sql = self.sql.replace("%", "%%").replace("{}", column)
        before, after = self.quotes
        if not nullable:
            return before, sql, after
        quoted = f"'{before}' || {sql} || '{after}'" if before or after else f"({sql})::text"
        return "", f"COALESCE({quoted}, 'null')", ""

    def cell(self, column: str) -> str:
        """SQL of the same text without JSON's quotes and escapes. NULL stays NULL."""
        sql = (self.plain or self.sql).replace("%", "%%").replace("{}", column)
        after = self.quotes[1].removesuffix('"')
        return f"({sql} || '{after}')" if after else f"({sql})"


def temporal(value: Any) -> str:
    """Return the text of a datetime, a time or a timedelta in every answer. Raises TypeError for any other value.

    A datetime is written in UTC, with the offset +00:00; without a time zone it counts as local time. The fraction of
    a datetime or a time has six digits. Python before 3.11 reads no `Z`, and only three or six digits; Swift's parser
    reads fractions or their absence, as configured, not both (docs/decisions/0015-one-width.md). Postgres writes
    both in the same way.

    A timedelta is an ISO 8601 duration with years of 365 days, as pydantic prints it, without zeros at the end of a
    fraction. Only Python writes it: a DurationField is refused where Postgres would.
    """
    if isinstance(value, datetime.datetime):
        return value.astimezone(datetime.UTC).isoformat(timespec="microseconds")
    if isinstance(value, datetime.time):
        return value.isoformat(timespec="microseconds")
    if not isinstance(value, datetime.timedelta):
        raise TypeError(f"{type(value).__name__} is neither a moment nor a time nor a duration.")
    total = abs(value)
    years, days = divmod(total.days, 365)
    minutes, seconds = divmod(total.seconds, 60)
    hours, minutes = divmod(minutes, 60)
    fraction = f".{total.microseconds:06}".rstrip("0") if total.microseconds else ""
    date = f"{years}Y" * bool(years) + f"{days}D" * bool(days)
    clock = f"{hours}H" * bool(hours) + f"{minutes}M" * bool(minutes)
    clock += f"{seconds}{fraction}S" * bool(seconds or fraction)
    return f"{'-' * (value < total)}P{date}" + (f"T{clock}" if clock else "T0S" if not date else "")


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()


def _quoted_temporal(value: Any) -> str:
    return f'"{temporal(value)}"'


QUOTES = ('"', '"')
BARE = JsonSql("{}", str)
BOOLEAN = JsonSql("{}::text", _json)
QUOTED = JsonSql("{}", lambda value: f'"{value}"', QUOTES)
# SQL of the zeros that Postgres leaves out at the end of a fraction. Rounding a timestamp and comparing it takes
# 10 ns, to_char 450.
ZEROS = "CASE {} " + " ".join(
    f"WHEN {{}}::TYPE({digits}) THEN '{'.' * (not digits)}{'0' * (6 - digits)}'" for digits in range(6)
)
ZEROS += " ELSE '' END"
# The moment in UTC, in a session of any time zone, without the 300 ns of a look-up in that zone.
UTC_TIMESTAMP = f"replace({{}} AT TIME ZONE INTERVAL '0' || {ZEROS.replace('TYPE', 'timestamptz')}, ' ', 'T')"
NULL_UNLESS_FINITE = "CASE WHEN {} IN ('NaN', 'Infinity', '-Infinity') THEN 'null' ELSE {}::text END"

# By Django's internal type: sample values, then the candidates, the cheapest first. DecimalField depends on its
# decimal places (see json_sql).
SMALL = [1, 2, 5, 10]  # for schemas with narrow bounds
INTEGERS = ([0, -1, 2**31 - 1, *SMALL], [BARE, QUOTED])
POSITIVE_INTEGERS = ([0, 2**31 - 1, *SMALL], [BARE, QUOTED])
# The first sample has characters of all kinds that JSON escapes. The short ones show conversions even in a schema
# with narrow bounds. HttpUrl takes the last.
TEXTS = (
    [' A "quoted" \\ \x01\n\u2028é😀 ', "aA ", "aA", "a ", "a", "A", "https://example.org/"],
    [JsonSql("to_json({}::text)", _json, plain="{}::text", is_text=True)],
)
CANDIDATES: dict[str, tuple[list[Any], list[JsonSql]]] = {
    **dict.fromkeys(["AutoField", "BigAutoField", "SmallAutoField"], INTEGERS),
    **dict.fromkeys(["IntegerField", "BigIntegerField", "SmallIntegerField"], INTEGERS),
    **dict.fromkeys(
        ["PositiveIntegerField", "PositiveBigIntegerField", "PositiveSmallIntegerField"], POSITIVE_INTEGERS
    ),
    **dict.fromkeys(["CharField", "TextField", "SlugField"], TEXTS),
    "BooleanField": ([True, False], [BOOLEAN]),
    "FloatField": (
        [1.5, -1e-7, 1e300, float("nan"), float("inf")],
        [JsonSql(NULL_UNLESS_FINITE, _json, plain=f"NULLIF({NULL_UNLESS_FINITE}, 'null')")],
    ),
    "UUIDField": ([uuid.UUID(int=2**127 + 10)], [QUOTED]),
    "GenericIPAddressField": (
        ["192.0.2.1", "2001:db8::1", "::ffff:192.0.2.1"],
        [JsonSql("to_json(host({}))", _json, plain="host({})")],
    ),
    "DateField": ([datetime.date(99, 1, 2)], [JsonSql("to_json({})", _json, plain="{}")]),
    "DateTimeField": (
        [
            datetime.datetime(2020, 1, 1, 0, 0, 13, 370000, datetime.UTC),
            datetime.datetime(99, 1, 1, tzinfo=datetime.UTC),
        ],
        [JsonSql(UTC_TIMESTAMP, _quoted_temporal, ('"', '+00:00"'))],
    ),
    "TimeField": (
        [datetime.time(13, 37, 0, 500000), datetime.time(13, 37)],
        [JsonSql("{} || " + ZEROS.replace("TYPE", "time"), _quoted_temporal, QUOTES)],
    ),
    "JSONField": ([{"a": [1, "b", None, True]}], [JsonSql("{}::text", _json)]),
}

# Types of pydantic's core schemas that leave a value as it is, in addition to the value's own type.
TRANSPARENT = frozenset(("any", "enum", "literal", "none", "nullable", "union"))
# Options of a core schema that change a text.
CONVERSIONS = ("to_upper", "to_lower", "strip_whitespace")
# Pydantic's codes of faults. PARSED, without `_parsing`: a text is no value of the type. INEXACT: a value would lose
# digits.
PARSED = frozenset(("bool", "date", "datetime", "decimal", "float", "int", "time", "time_delta", "uuid"))
INEXACT = frozenset(("date_from_datetime_inexact", "int_from_float"))


@cache  # a call takes 30 us, and a listing compiles many queries of the same fields
def json_sql(field: "models.Field[Any, Any]", schema: type[BaseModel], name: str) -> JsonSql:
    """The SQL that writes values of `field` as the schema prints its field `name`.

    Raises ImproperlyConfigured where Postgres cannot write the same.
    """
    if hasattr(schema, f"resolve_{name}"):
        raise ImproperlyConfigured(f"{schema.__name__}.{name}: Postgres cannot call its resolver.")
    field = getattr(field, "output_field", None) or field  # of a generated field
    internal_type = field.get_internal_type()
    samples: Sequence[Any]
    # If a custom field converts the values that it reads, the schema prints these, and Postgres the stored values.
    converts = hasattr(field, "from_db_value") and internal_type != "JSONField"
    if converts or not (isinstance(field, models.DecimalField) or internal_type in CANDIDATES):
        raise ImproperlyConfigured(f"{field}: Postgres cannot write a {type(field).__name__} as JSON.")
    if isinstance(field, models.DecimalField):
        # Python prints values below 1e-6 with an exponent: the second sample shows whether the schema does.
        unit = Decimal(1).scaleb(-field.decimal_places)
        exact = Context(prec=field.decimal_places + 2)
        samples = [exact.quantize(Decimal("-12.5"), unit), unit, 0 * unit]
        samples += [exact.quantize(Decimal(number), unit) for number in SMALL]
        number = "CASE WHEN {} = 'NaN' THEN 'null' ELSE {}::text END"
        candidates = [
            JsonSql("{}", lambda value: f'"{value:f}"', QUOTES),
            JsonSql(number, lambda value: f"{value:f}", plain="NULLIF({}, 'NaN')", may_lose=True),
        ]
    else:
        samples, candidates = CANDIDATES[internal_type]
        samples = [value for value, _ in field.flatchoices if value is not None] or samples

    return choose(candidates, samples, schema, name, of=str(field))


def target_of(field: Any) -> Any:
    """Return the field that a relation refers to, through any number of relations; else the field itself."""
    while field.is_relation:
        field = field.target_field
    return field


def choices_of(field: Any) -> list[Any]:
    """Return the values that a field with choices may have; a blank text may also be empty, as in Django."""
    values = [value for value, _ in field.flatchoices or () if value is not None]
    is_blank = field.blank and isinstance(field, models.CharField | models.TextField)
    return [*values, ""] if values and is_blank and "" not in values else values


def choose(
    candidates: Sequence[JsonSql], samples: Sequence[Any], schema: type[BaseModel], name: str, *, of: str
) -> JsonSql:
    """The first candidate that writes the samples as the schema prints its field `name`.

    Raises ImproperlyConfigured if there is none. In this error, `of` names the field or aggregate with the values.
    """
    printed = _printed(schema, name, samples, of)
    for candidate in candidates:
        if all(_is_same_json(text, candidate.python(sample)) for sample, text in printed):
            return candidate
    sample, text = next(
        (sample, text) for sample, text in printed if not _is_same_json(text, candidates[0].python(sample))
    )
    raise ImproperlyConfigured(
        f"{schema.__name__}.{name}: no JSON that Postgres can write for {of} equals what the schema prints: "
        f"for {sample!r} it prints {text or 'nothing'}, "
        f"Postgres {' or '.join(dict.fromkeys(candidate.python(sample) for candidate in candidates))}."
    )


def _printed(schema: type[BaseModel], name: str, samples: Sequence[Any], of: str) -> list[tuple[Any, str]]:
    """Return each sample that the schema accepts, with its JSON in an answer.

    If the schema's bounds exclude all samples, the field's examples take their place, or else all samples as they
    are. Raises ImproperlyConfigured if the field is of another type, or if it may convert values and neither samples
    nor examples show how. A datetime or time without a serialiser in the schema is written by `temporal`, as in all
    other answers.
    """
    valid, faults = _accepted(schema, name, samples)
    # Whether all faults are about the value's type, and none about its length, size or form.
    are_of_type = all(
        code.endswith("_type") or code.removesuffix("_parsing") in PARSED or code in INEXACT
        for code in {fault["type"] for fault in faults}
    )
    if not valid and are_of_type and not isinstance(samples[0], dict):
        raise ImproperlyConfigured(
            f"{schema.__name__}.{name}: its type takes no value of {of}, such as {samples[0]!r}: "
            f"{faults[0]['msg'][:1].lower()}{faults[0]['msg'][1:]}."
        )
    if not valid and not isinstance(samples[0], dict):
        valid, _ = _accepted(schema, name, _examples(schema, name, samples[0]))
        if not valid and _may_convert(schema, name, type(samples[0])):
            raise ImproperlyConfigured(
                f"{schema.__name__}.{name}: its bounds exclude all samples of {of}, so what it makes of a value "
                "cannot be seen. Say a value that it takes: Field(examples=[...])."
            )
    printed = []
    for sample, value in valid or [(sample, sample) for sample in samples]:
        one = schema.model_construct(**{name: value})
        dumped = one.model_dump(include={name}, by_alias=False, warnings=False).get(name)
        if isinstance(dumped, datetime.datetime | datetime.time):
            text = _quoted_temporal(dumped)
        else:
            text = one.model_dump_json(include={name}, by_alias=False, warnings=False)
            text = text[len(f"{{{_json(name)}:") : -1]
        printed.append((sample, text))
    return printed


def _examples(schema: type[BaseModel], name: str, sample: Any) -> list[Any]:
    """The examples of a field, which are JSON, as values of the sample's type."""
    found = []
    for example in schema.model_fields[name].examples or ():
        with suppress(ValidationError, InvalidOperation):
            value = TypeAdapter(type(sample)).validate_python(example)
            found.append(value.quantize(sample) if isinstance(sample, Decimal) else value)
    return found


def _accepted(
    schema: type[BaseModel], name: str, samples: Sequence[Any]
) -> tuple[list[tuple[Any, Any]], list[Any]]:
    """Return each sample that the schema accepts, with the value that results, and the faults of all others."""
    valid, faults = [], []
    for sample in samples:
        try:
            one = schema.__pydantic_validator__.validate_assignment(schema.model_construct(), name, sample)
        except ValidationError as error:
            faults += error.errors(include_url=False, include_input=False, include_context=False)
            continue
        valid.append((sample, vars(one)[name]))  # vars: Ninja may have wrapped it
    return valid, faults


def _may_convert(schema: type[BaseModel], name: str, kind: type) -> bool:
    """Whether validation may change a value of type `kind`: by a function, a conversion or another type.

    Serialisers do not count: `_printed` prints samples that were not validated through them, so their effect is seen.
    """
    info = schema.model_fields[name]
    if kind is str and any(map(schema.model_config.get, (f"str_{each}" for each in CONVERSIONS))):
        return True
    validators = schema.__pydantic_decorators__.field_validators.values()
    if any({name, "*"} & {*each.info.fields} for each in validators):
        return True
    transparent = TRANSPARENT | {kind.__name__.lower()}
    # Annotated needs one annotation at least
    annotated: Any = Annotated[info.annotation, Field(), *info.metadata]
    nodes: list[Any] = [TypeAdapter(annotated).core_schema]
    while nodes:
        node = nodes.pop()
        if isinstance(node, dict):
            if node.get("type", "any") not in transparent or any(map(node.get, CONVERSIONS)):
                return True
            nodes += [each for key, each in node.items() if key not in {"metadata", "serialization"}]
        elif isinstance(node, list | tuple):
            nodes += node
    return False


def _is_same_json(printed: str, written: str) -> bool:
    """Whether two JSON texts are equal: strings to the letter, all else as values of one type."""
    if printed == written or printed[:1] in ("", '"'):
        return printed == written
    one, other = orjson.loads(printed), orjson.loads(written)
    return type(one) is type(other) and bool(one == other)
