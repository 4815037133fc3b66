"""The textual form of a parameter's value: how it is read strictly, and what the OpenAPI document says of it.

Strict on purpose. Each value has one spelling as far as that is practical, so that equal requests are equal cache
keys, and a value that Postgres would refuse never gets there. The kind follows from the model's field.
"""

import datetime
import re
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import singledispatch
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.db import models
from django.db.backends.base.operations import BaseDatabaseOperations


class Malformed(ValueError):
    """The text is not a value of the kind. `code` is stable; the message says what is expected."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


@dataclass(frozen=True, slots=True)
class Kind:
    """`parse` reads a value or raises Malformed, `spell` is its inverse, `schema` is its JSON Schema."""

    parse: Callable[[str], Any]
    spell: Callable[[Any], str]
    schema: dict[str, Any]


def integer(low: int, high: int, **schema: Any) -> Kind:
    """Whole numbers from `low` to `high`, in canonical decimal digits."""
    expected = f"must be an integer from {low} to {high}"

    def parse(text: str) -> int:
        if not re.fullmatch(r"0|-?[1-9][0-9]{0,18}", text):
            digits = re.fullmatch(r"-?[0-9]{20,}", text)
            raise Malformed("out_of_range" if digits else "malformed", expected)
        if not low <= (value := int(text)) <= high:
            raise Malformed("out_of_range", expected)
        return value

    return Kind(parse, str, {"type": "integer", "minimum": low, "maximum": high, **schema})


def decimal(max_digits: int, decimal_places: int) -> Kind:
    """Decimal numbers as numeric(max_digits, decimal_places) holds them: 12 and 12.5 and 12.50 are one value."""
    whole = max_digits - decimal_places
    pattern = rf"-?[0-9]{{1,{whole}}}" + (rf"(\.[0-9]{{1,{decimal_places}}})?" if decimal_places else "")
    unit = Decimal(1).scaleb(-decimal_places)
    expected = (
        f"must be a decimal number of at most {whole} digits before and {decimal_places} after the point"
    )

    def spell(value: Decimal) -> str:
        return str(value.quantize(unit) + 0)  # + 0: there is one zero

    def parse(text: str) -> Decimal:
        if not re.fullmatch(pattern, text):
            number = re.fullmatch(r"-?[0-9]+(\.[0-9]+)?", text)
            raise Malformed("out_of_range" if number else "malformed", expected)
        return Decimal(text)

    example = "499.99"[-max_digits:]
    return Kind(parse, spell, {"type": "string", "pattern": f"^{pattern}$", "examples": [example]})


def _timestamp(text: str) -> datetime.datetime:
    expected = "must be an RFC 3339 date and time with an offset, such as 2020-01-01T00:00:00Z"
    if re.fullmatch(r"[^ +]+ [0-9:]+", text):
        expected += "; a '+' in a query string is written %2B"
    if not re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?(Z|[+-]\d\d:\d\d)", text, re.ASCII):
        raise Malformed("malformed", expected)
    try:
        return datetime.datetime.fromisoformat(text).astimezone(datetime.UTC)
    except (ValueError, OverflowError):
        raise Malformed("out_of_range", expected) from None


TIMESTAMP = Kind(
    _timestamp,
    lambda value: value.astimezone(datetime.UTC).isoformat(),
    {"type": "string", "format": "date-time", "examples": ["2020-01-01T00:00:00Z"]},
)


def matching(
    pattern: str,
    convert: Callable[[str], Any],
    expected: str,
    schema: dict[str, Any],
    spell: Callable[[Any], str] = str,
) -> Kind:
    """Values whose text matches `pattern` in full and that `convert` accepts (it may raise ValueError)."""

    def parse(text: str) -> Any:
        if re.fullmatch(pattern, text, re.ASCII):
            try:
                return convert(text)
            except ValueError:
                pass
        raise Malformed("malformed", expected)

    return Kind(parse, spell, schema)


def text(max_length: int) -> Kind:
    """Any text of 1 to `max_length` characters."""
    expected = f"must be 1 to {max_length} characters"
    schema = {"type": "string", "minLength": 1, "maxLength": max_length}
    return matching(rf"(?s).{{1,{max_length}}}", str, expected, schema)


def one_of(values: Sequence[str], **schema: Any) -> Kind:
    """One of a few words."""

    def parse(text: str) -> str:
        if text not in values:
            raise Malformed("not_a_choice", f"must be one of {', '.join(values)}")
        return text

    return Kind(parse, str, {"type": "string", "enum": list(values), **schema})


@singledispatch
def kind_of(field: "models.Field[Any, Any]") -> Kind:
    """The kind of a model field's values. Raises ImproperlyConfigured for a field that no parameter can spell."""
    hint = f'; name its row by a unique field: equals("{field.name}", by="id")' if field.is_relation else ""
    raise ImproperlyConfigured(f"{field}: a {type(field).__name__} has no spelling as a parameter{hint}.")


@kind_of.register
def _(field: models.IntegerField) -> Kind:  # type: ignore[type-arg]  # generic to the type checker only
    return integer(*BaseDatabaseOperations.integer_field_ranges[field.get_internal_type()])


@kind_of.register
def _(field: models.DecimalField) -> Kind:  # type: ignore[type-arg]
    return decimal(field.max_digits, field.decimal_places)


@kind_of.register
def _(_: models.DateTimeField) -> Kind:  # type: ignore[type-arg]
    return TIMESTAMP


@kind_of.register
def _(_: models.DateField) -> Kind:  # type: ignore[type-arg]
    schema = {"type": "string", "format": "date", "examples": ["2020-01-01"]}
    return matching(
        r"\d{4}-\d\d-\d\d", datetime.date.fromisoformat, "must be a date such as 2020-01-01", schema
    )


@kind_of.register
def _(_: models.BooleanField) -> Kind:  # type: ignore[type-arg]
    schema = {"type": "boolean"}
    return matching(r"true|false", "true".__eq__, "must be true or false", schema, lambda v: str(v).lower())


@kind_of.register
def _(_: models.UUIDField) -> Kind:  # type: ignore[type-arg]
    pattern = r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
    return matching(pattern, uuid.UUID, "must be a UUID in lower case", {"type": "string", "format": "uuid"})


@kind_of.register
def _(field: models.CharField) -> Kind:  # type: ignore[type-arg]
    if field.choices:
        return one_of([str(value) for value, _label in field.flatchoices])
    return text(field.max_length or 255)


@kind_of.register
def _(field: models.SlugField) -> Kind:  # type: ignore[type-arg]
    pattern = rf"[-a-zA-Z0-9_]{{1,{field.max_length}}}"
    schema = {"type": "string", "pattern": f"^{pattern}$"}
    return matching(pattern, str, "must be a slug: letters, digits, - and _", schema)
