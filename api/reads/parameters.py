"""Query parameters, read strictly: their types, and the reader of a query string.

A ParameterType reads a value from text, writes its canonical text, and has its schema for the OpenAPI document; it
follows from the model's field. An unknown, repeated, empty or undecodable parameter is refused, and named. Leniency
would cost twice: a misspelt filter would silently answer something else, and any made-up parameter would make a new
cache key. A value has one canonical text, so equal requests have equal cache keys. A value that Postgres would refuse
never reaches Postgres.
"""

import datetime
import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Context, Decimal
from functools import singledispatch
from typing import Any
from urllib.parse import unquote_to_bytes

from django.core.exceptions import ImproperlyConfigured
from django.db import models
from django.db.backends.base.operations import BaseDatabaseOperations
from django.http import HttpRequest

from api.problems import Fault, invalid
from ops.postgres.json_sql import target_of

MAX_FAULTS = 10  # faults that one answer names; a query string may have thousands


class Malformed(ValueError):
    """A text is not a value of the type. `code` is stable; the message says how a value looks."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


@dataclass(frozen=True, slots=True)
class ParameterType:
    """`parse` reads a value or raises Malformed, `format` gives its canonical text, `schema` is its JSON Schema."""

    parse: Callable[[str], Any]
    format: Callable[[Any], str]
    schema: dict[str, Any]


_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,18}")


def integer(low: int, high: int, **schema: Any) -> ParameterType:
    """Whole numbers from `low` to `high`, in canonical decimal digits."""
    expected = f"must be an integer from {low} to {high}"

    def parse(text: str) -> int:
        if not _INTEGER.fullmatch(text):
            digits = re.fullmatch(r"-?[0-9]{20,}", text)
            raise Malformed("out_of_range" if digits else "malformed", expected)
        if not low <= (value := int(text)) <= high:
            raise Malformed("out_of_range", expected)
        return value

    return ParameterType(parse, str, {"type": "integer", "minimum": low, "maximum": high, **schema})


def decimal(max_digits: int, decimal_places: int) -> ParameterType:
    """Decimal numbers as numeric(max_digits, decimal_places) holds them: 12.5 and 12.50 and 12.500 are one value."""
    whole = max_digits - decimal_places
    digits = rf"[0-9]{{1,{whole}}}" if whole else "0"
    pattern = f"-?{digits}" + (rf"(\.[0-9]{{1,{decimal_places}}}0*)?" if decimal_places else "")
    unit, exact = Decimal(1).scaleb(-decimal_places), Context(prec=max_digits + 1)
    expected = (
        f"must be a decimal number of at most {whole} digits before and {decimal_places} after the point"
    )

    def canonical(value: Decimal) -> str:
        return f"{exact.add(exact.quantize(value, unit), 0):f}"  # + 0 makes 0 of -0

    def parse(text: str) -> Decimal:
        if not re.fullmatch(pattern, text):
            number = re.fullmatch(r"-?[0-9]+(\.[0-9]+)?", text)
            raise Malformed("out_of_range" if number else "malformed", expected)
        return Decimal(text)

    example = canonical(min(Decimal("499.99"), 10**whole - unit))
    return ParameterType(
        parse, canonical, {"type": "string", "pattern": f"^{pattern}$", "examples": [example]}
    )


_RFC_3339 = re.compile(r"(\d{4}-\d\d-\d\d[Tt](\d\d):\d\d:)(\d\d)(?:\.\d+)?(?:[Zz]|[+-]\d\d:(\d\d))", re.ASCII)


def _timestamp(text: str) -> datetime.datetime:
    """Read any moment of RFC 3339, in UTC. Digits beyond microseconds are cut. Raises Malformed."""
    expected = "must be an RFC 3339 date and time with an offset, such as 2020-01-01T00:00:00Z"
    if not (found := _RFC_3339.fullmatch(text)):
        if re.fullmatch(r"[^ +]+ [0-9:]+", text):
            expected += "; a '+' in a query string is written %2B"
        raise Malformed("malformed", expected)
    minute, hour, second, offset_minutes = found.groups("00")
    try:
        if hour == "24" or offset_minutes > "59":  # some versions of Python accept these
            raise ValueError
        if second != "60":
            return datetime.datetime.fromisoformat(text.upper()).astimezone(datetime.UTC)
        # Python and Postgres have no leap seconds: one is read as the second after it, which begins a month.
        before = datetime.datetime.fromisoformat(f"{minute}59{text[19:].upper()}").astimezone(datetime.UTC)
        value = before + datetime.timedelta(seconds=1)
        if (value.day, value.hour, value.minute, value.second) != (1, 0, 0, 0):
            raise ValueError
    except (ValueError, OverflowError):
        raise Malformed("out_of_range", expected) from None
    return value


TIMESTAMP = ParameterType(
    _timestamp,
    lambda value: value.astimezone(datetime.UTC).isoformat(),
    {
        "type": "string",
        "format": "date-time",
        "description": "RFC 3339, with any offset; what is beyond microseconds is cut.",
        "examples": ["2020-01-01T00:00:00Z"],
    },
)


def matching(
    pattern: str,
    convert: Callable[[str], Any],
    expected: str,
    schema: dict[str, Any],
    canonical: Callable[[Any], str] = str,
) -> ParameterType:
    """Values with a text that matches `pattern` as a whole and that `convert` accepts without a ValueError.

    `expected` is the message for other texts.
    """

    def parse(text: str) -> Any:
        if re.fullmatch(pattern, text):
            try:
                return convert(text)
            except ValueError:
                pass
        raise Malformed("malformed", expected)

    return ParameterType(parse, canonical, schema)


def text(max_length: int) -> ParameterType:
    """Any text of 1 to `max_length` characters."""
    expected = f"must be 1 to {max_length} characters"
    schema = {"type": "string", "minLength": 1, "maxLength": max_length, "pattern": r"^[^\x00]*$"}
    return matching(rf"[^\x00]{{1,{max_length}}}", str, expected, schema)  # Postgres cannot hold a NUL


def one_of(values: Sequence[str], **schema: Any) -> ParameterType:
    """One of the texts in `values`."""

    def parse(text: str) -> str:
        if text not in values:
            raise Malformed("not_a_choice", f"must be one of {', '.join(values)}")
        return text

    return ParameterType(parse, str, {"type": "string", "enum": list(values), **schema})


def key_type_of(field: "models.Field[Any, Any]") -> ParameterType:
    """The type of a field's values in a sort key: any that the column holds, also those that no request may have."""
    field = target_of(field)
    if isinstance(field, models.CharField):
        return matching(r"[^\x00]*", str, "must be a text", {"type": "string"})
    return type_of(field)


@singledispatch
def type_of(field: "models.Field[Any, Any]") -> ParameterType:
    """The type of a model field's values. Raises ImproperlyConfigured for a field that parameters cannot have."""
    hint = f'; name its row by a unique field: equals("{field.name}", by="id")' if field.is_relation else ""
    raise ImproperlyConfigured(f"{field}: a {type(field).__name__} cannot be a parameter{hint}.")


@type_of.register
def _(field: models.IntegerField) -> ParameterType:  # type: ignore[type-arg]  # generic to the type checker only
    return integer(*BaseDatabaseOperations.integer_field_ranges[field.get_internal_type()])


@type_of.register
def _(field: models.DecimalField) -> ParameterType:  # type: ignore[type-arg]
    return decimal(field.max_digits, field.decimal_places)


@type_of.register
def _(_: models.DateTimeField) -> ParameterType:  # type: ignore[type-arg]
    return TIMESTAMP


@type_of.register
def _(_: models.DateField) -> ParameterType:  # type: ignore[type-arg]
    schema = {"type": "string", "format": "date", "examples": ["2020-01-01"]}
    return matching(
        "[0-9]{4}-[0-9]{2}-[0-9]{2}", datetime.date.fromisoformat, "must be a date such as 2020-01-01", schema
    )


@type_of.register
def _(_: models.BooleanField) -> ParameterType:  # type: ignore[type-arg]
    schema = {"type": "boolean"}
    return matching(r"true|false", "true".__eq__, "must be true or false", schema, lambda v: str(v).lower())


@type_of.register
def _(_: models.UUIDField) -> ParameterType:  # type: ignore[type-arg]
    pattern = r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"  # either case: RFC 9562, section 4
    return matching(
        pattern, uuid.UUID, "must be a UUID with its hyphens", {"type": "string", "format": "uuid"}
    )


@type_of.register
def _(field: models.CharField) -> ParameterType:  # type: ignore[type-arg]
    if field.choices:
        return one_of([str(value) for value, _label in field.flatchoices if value not in (None, "")])
    return text(field.max_length or 255)


@type_of.register
def _(field: models.SlugField) -> ParameterType:  # type: ignore[type-arg]
    expected = "must be a slug: letters, digits, - and _"
    is_unicode: bool = field.allow_unicode  # type: ignore[attr-defined]  # which the stubs lack
    if is_unicode:  # Python's \w, as in Django's rule. That of JSON Schema is ASCII, so it gets no pattern.
        schema = {"type": "string", "minLength": 1, "maxLength": field.max_length}
        return matching(rf"[-\w]{{1,{field.max_length}}}", str, expected, schema)
    pattern = rf"[-a-zA-Z0-9_]{{1,{field.max_length}}}"
    return matching(pattern, str, expected, {"type": "string", "pattern": f"^{pattern}$"})


def string_of(request: HttpRequest) -> str:
    """The query string of a request. A request of Ninja's test client has it in parsed form only."""
    text: str | None = request.META.get("QUERY_STRING")
    return request.GET.urlencode() if text is None else text


def refuse(request: HttpRequest) -> None:
    """Raise Problem 422 if the request has parameters, for endpoints that take none."""
    read(string_of(request), {})


def read(query_string: str, types: Mapping[str, ParameterType]) -> dict[str, Any]:
    """Return the values of the parameters by name. Raises Problem 422 that names up to MAX_FAULTS at fault."""
    texts: dict[str, str] = {}
    values: dict[str, Any] = {}
    faults: list[Fault] = []
    for pair in query_string.split("&"):
        if not pair or len(faults) == MAX_FAULTS:
            continue
        name, _, encoded = pair.partition("=")
        try:
            name = _decode(name)
            if name not in types:
                raise Malformed("unknown", "is not a parameter of this resource")
            if name in texts:
                raise Malformed("repeated", "may be given once only")
            texts[name] = _decode(encoded)
            if not texts[name]:
                raise Malformed("empty", "may not be empty; leave the parameter out instead")
            values[name] = types[name].parse(texts[name])
        except Malformed as error:
            faults.append(Fault(parameter=name[:50], code=error.code, detail=str(error)))
    if faults:
        raise invalid(faults)
    return values


def _decode(encoded: str) -> str:
    """Decode application/x-www-form-urlencoded text. Raises Malformed for a NUL or bytes that are not UTF-8."""
    try:
        text = unquote_to_bytes(encoded.replace("+", " ")).decode()
    except UnicodeDecodeError:
        raise Malformed("encoding", "is not valid UTF-8") from None
    if "\0" in text:
        raise Malformed("encoding", "may not contain a NUL character")
    return text
