"""How Postgres writes a model field's value as JSON, exactly as the schema would.

The schema is the author: for each kind of column there are candidate spellings in SQL, each with its counterpart in
Python, and the first whose counterpart prints sample values as the schema does is taken. A field whose schema prints
something else is refused when it is declared.
"""

import datetime
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from typing import Any

import orjson
from django.contrib.postgres.fields import ArrayField
from django.core.exceptions import ImproperlyConfigured
from django.db.models import DecimalField, Field
from pydantic import BaseModel, ValidationError


@dataclass(frozen=True, slots=True)
class Spelling:
    """SQL for a value that is not null, between two literal texts. `{}` is the column."""

    sql: str
    python: Callable[[Any], str]  # what it prints, for samples
    quotes: tuple[str, str] = ("", "")  # literal texts around it
    array: str = ""  # SQL for an array of such values; without it, arrays are refused

    def text(self, column: str, *, nullable: bool) -> tuple[str, str, str]:
        """The literal before, the SQL of the column, the literal after."""
        sql = self.sql.replace("%", "%%").replace("{}", column)
        before, after = self.quotes
        if not nullable:
            return before, sql, after
        quoted = f"'{before}' || {sql} || '{after}'" if before or after else f"({sql})::text"
        return "", f"COALESCE({quoted}, 'null')", ""


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()


def _trimmed(value: datetime.datetime | datetime.time) -> str:
    """As Postgres prints it: without trailing zeros of the fraction."""
    text = value.isoformat()
    clock = text.partition("+")[0]
    return (clock.rstrip("0") if "." in clock else clock) + text[len(clock) :]


def _iso_duration(value: datetime.timedelta) -> str:
    """As pydantic prints it: ISO 8601 with years of 365 days."""
    total = abs(value)
    years, days = divmod(total.days, 365)
    minutes, seconds = divmod(total.seconds, 60)
    hours, minutes = divmod(minutes, 60)
    fraction = f".{total.microseconds:06}".rstrip("0") if total.microseconds else ""
    date = f"{years}Y" * bool(years) + f"{days}D" * bool(days)
    clock = f"{hours}H" * bool(hours) + f"{minutes}M" * bool(minutes)
    clock += f"{seconds}{fraction}S" * bool(seconds or fraction)
    return f"{'-' * (value < total)}P{date}" + (f"T{clock}" if clock else "T0S" if not date else "")


QUOTES = ('"', '"')
ARRAY = "array_to_json({})"
BARE = Spelling("{}", str, array=ARRAY)
QUOTED = Spelling("{}", lambda value: f'"{value}"', QUOTES, "array_to_json({}::text[])")
TO_JSON = Spelling("to_json({})", _json, array=ARRAY)
ISO_FRACTION = (
    "CASE WHEN EXTRACT(MICROSECONDS FROM {0})::bigint % 1000000 = 0 THEN '' ELSE to_char({1}, '.US') END"
)
DURATION = """(
    SELECT CASE WHEN {} < interval '0' THEN '-' ELSE '' END || 'P'
        || CASE WHEN days >= 365 THEN days / 365 || 'Y' ELSE '' END
        || CASE WHEN days % 365 > 0 THEN days % 365 || 'D' ELSE '' END
        || CASE WHEN clock > 0 OR days = 0 THEN 'T' ELSE '' END
        || CASE WHEN clock >= 3600 THEN trunc(clock / 3600) || 'H' ELSE '' END
        || CASE WHEN clock % 3600 >= 60 THEN trunc(clock % 3600 / 60) || 'M' ELSE '' END
        || CASE WHEN clock % 60 > 0 OR days + clock = 0 THEN trim_scale(clock % 60) || 'S' ELSE '' END
    FROM (SELECT abs(EXTRACT(EPOCH FROM {})) AS seconds) AS duration,
         LATERAL (SELECT trunc(seconds / 86400)::bigint AS days, seconds % 86400 AS clock) AS split
    WHERE seconds IS NOT NULL
)"""

# A kind of column by Django's internal type: sample values, then the spellings to choose from, the cheapest first.
INTEGERS = ([0, -1, 2**31 - 1], [BARE, QUOTED])
TEXTS = ([' A "quoted" \\ \x01\n\u2028é😀 '], [Spelling("to_json({}::text)", _json, array=ARRAY)])
KINDS: dict[str, tuple[list[Any], list[Spelling]]] = {
    **dict.fromkeys(["AutoField", "BigAutoField", "SmallAutoField"], INTEGERS),
    **dict.fromkeys(["IntegerField", "BigIntegerField", "SmallIntegerField"], INTEGERS),
    **dict.fromkeys(
        ["PositiveIntegerField", "PositiveBigIntegerField", "PositiveSmallIntegerField"],
        ([0, 1, 2**31 - 1], [BARE, QUOTED]),
    ),
    **dict.fromkeys(["CharField", "TextField", "SlugField"], TEXTS),
    "BooleanField": ([True, False], [Spelling("{}::text", _json, array=ARRAY)]),
    "FloatField": (
        [1.5, -1e-7, 1e300, float("nan"), float("inf")],
        [
            Spelling(
                "CASE WHEN {} IN ('NaN', 'Infinity', '-Infinity') THEN 'null' ELSE {}::text END",
                _json,
                array="array_to_json(array_replace(array_replace(array_replace("
                "{}, 'NaN', NULL), 'Infinity', NULL), '-Infinity', NULL))",
            )
        ],
    ),
    "UUIDField": ([uuid.UUID(int=2**127 + 10)], [QUOTED]),
    "GenericIPAddressField": (
        ["192.0.2.1", "2001:db8::1", "::ffff:192.0.2.1"],
        [Spelling("to_json(host({}))", _json, array=ARRAY)],
    ),
    "DateField": ([datetime.date(99, 1, 2)], [TO_JSON]),
    "DateTimeField": (
        [
            datetime.datetime(2020, 1, 1, 0, 0, 13, 370000, datetime.UTC),
            datetime.datetime(99, 1, 1, tzinfo=datetime.UTC),
        ],
        [
            Spelling("to_json({})", lambda value: f'"{_trimmed(value)}"', array=ARRAY),
            Spelling(
                "to_char({} AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS') || "
                + ISO_FRACTION.format("{}", "{} AT TIME ZONE 'UTC'"),
                lambda value: f'"{value.isoformat()[:-6]}Z"',
                ('"', 'Z"'),
            ),
        ],
    ),
    "TimeField": (
        [datetime.time(13, 37, 0, 500000), datetime.time(13, 37)],
        [
            Spelling("to_json({})", lambda value: f'"{_trimmed(value)}"', array=ARRAY),
            Spelling(
                "to_char({}, 'HH24:MI:SS') || " + ISO_FRACTION.format("{}", "{}"),
                lambda value: f'"{value.isoformat()}"',
                QUOTES,
            ),
        ],
    ),
    "DurationField": (
        [
            datetime.timedelta(days=-400, seconds=5),
            datetime.timedelta(0),
            datetime.timedelta(days=731, hours=5, microseconds=1500),
        ],
        [
            Spelling(DURATION, lambda value: f'"{_iso_duration(value)}"', QUOTES),
            Spelling("EXTRACT(EPOCH FROM {})::float8", lambda value: _json(value.total_seconds())),
        ],
    ),
    "JSONField": ([{"a": [1, "b", None, True]}], [Spelling("{}::text", _json)]),
}


@cache  # of 30 us a field; a listing compiles many queries of the same ones
def spell(field: "Field[Any, Any]", schema: type[BaseModel], name: str) -> Spelling:
    """How the values of `field` are written so that they read as the schema's field `name`.

    Raises ImproperlyConfigured where Postgres cannot print what the schema prints.
    """
    if hasattr(schema, f"resolve_{name}"):
        raise ImproperlyConfigured(f"{schema.__name__}.{name}: Postgres cannot call its resolver.")
    samples, candidates = _kind(field)
    printed = [(sample, _printed(schema, name, valid)) for sample, valid in _validated(schema, name, samples)]
    for candidate in candidates:
        if all(_same(text, candidate.python(sample)) for sample, text in printed):
            return candidate
    differs = (one for one in printed if not (candidates and _same(one[1], candidates[0].python(one[0]))))
    sample, text = next(differs)
    raise ImproperlyConfigured(
        f"{schema.__name__}.{name}: no JSON that Postgres can write for {field} equals what the schema prints: "
        f"for {sample!r} it prints {text or 'nothing'}, "
        f"Postgres {' or '.join(candidate.python(sample) for candidate in candidates) or 'nothing'}."
    )


def _kind(field: "Field[Any, Any]") -> tuple[Sequence[Any], Sequence[Spelling]]:
    field = getattr(field, "output_field", None) or field  # of a generated field
    if isinstance(field, ArrayField):
        return _array(field)
    kind = field.get_internal_type()
    if isinstance(field, DecimalField):
        return _decimal(field.decimal_places)
    # A field of one's own that converts what it reads: what is stored is not what the schema sees.
    if kind not in KINDS or (hasattr(field, "from_db_value") and kind != "JSONField"):
        raise ImproperlyConfigured(f"{field}: a {type(field).__name__} has no spelling in JSON.")
    samples, candidates = KINDS[kind]
    return ([value for value, _ in field.flatchoices if value is not None] or samples), candidates


def _decimal(places: int) -> tuple[Sequence[Any], Sequence[Spelling]]:
    """Python prints small values with an exponent, from the seventh place on; the samples bring it to light."""
    unit = Decimal(1).scaleb(-places)
    number = "CASE WHEN {} = 'NaN' THEN 'null' ELSE {}::text END"
    return [Decimal("-12.5").quantize(unit), unit, 0 * unit], [
        Spelling("{}", lambda value: f'"{value:f}"', QUOTES, "array_to_json({}::text[])"),
        Spelling(number, lambda value: f"{value:f}"),
    ]


def _array(field: "ArrayField[Any, Any]") -> tuple[Sequence[Any], Sequence[Spelling]]:
    samples, candidates = _kind(field.base_field)
    return [*([one] for one in samples), [*samples, None], []], [
        _array_of(one) for one in candidates if one.array
    ]


def _array_of(one: Spelling) -> Spelling:
    def python(values: Sequence[Any]) -> str:
        return f"[{','.join('null' if value is None else one.python(value) for value in values)}]"

    return Spelling(one.array, python, array=one.array)


def _validated(schema: type[BaseModel], name: str, samples: Sequence[Any]) -> list[tuple[Any, Any]]:
    """Those samples that the schema takes, each with what it makes of them; or all, if it takes none."""
    valid = []
    for sample in samples:
        try:
            one = schema.__pydantic_validator__.validate_assignment(schema.model_construct(), name, sample)
        except ValidationError:
            continue
        valid.append((sample, vars(one)[name]))  # vars: Ninja may have wrapped it
    return valid or [(sample, sample) for sample in samples]


def _printed(schema: type[BaseModel], name: str, value: Any) -> str:
    """The value as the schema prints it, with whatever serialisers and configuration it has."""
    one = schema.model_construct(**{name: value})
    return one.model_dump_json(include={name}, by_alias=False, warnings=False)[len(f"{{{_json(name)}:") : -1]


def _same(printed: str, spelled: str) -> bool:
    """Equal JSON: to the letter, or as numbers of one type and as objects."""
    if printed == spelled or printed[:1] in ("", '"'):
        return printed == spelled
    one, other = orjson.loads(printed), orjson.loads(spelled)
    return type(one) is type(other) and bool(one == other)
