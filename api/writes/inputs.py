"""The content of a write as a pydantic model, made from the resource's schema and the model's columns.

The schema says how a field looks in JSON, as in answers; the column says which values it holds. So a value that is
too long, too large or too precise is refused with the name of its field, before Postgres is asked. JSON is read
strictly: "7" is no integer, and 1 is not true.
"""

import datetime
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from functools import cache, partial
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NotRequired, Union, get_args, get_origin
from uuid import UUID

from django.core.exceptions import ImproperlyConfigured
from django.core.exceptions import ValidationError as Invalid
from django.core.validators import (
    DecimalValidator,
    MaxLengthValidator,
    MaxValueValidator,
    MinValueValidator,
    ProhibitNullCharactersValidator,
)  # fmt: skip
from django.db import models
from django.db.backends.base.operations import BaseDatabaseOperations
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    NaiveDatetime,
    PlainSerializer,
    Strict,
    TypeAdapter,
    ValidationError,
    WithJsonSchema,
    create_model,
)  # fmt: skip
from pydantic_core import (
    CoreConfig,
    CoreSchema,
    PydanticCustomError,
    SchemaValidator,
    core_schema,
    to_jsonable_python,
)  # fmt: skip
from typing_extensions import TypedDict

from api.problems import Fault, Problem, invalid
from api.reads.parameters import MAX_FAULTS, TIMESTAMP, Malformed, type_of
from api.writes.content import MAX_NAME_CHARACTERS, UNKNOWN
from ops.postgres.commands import Column
from ops.postgres.json_sql import choices_of, target_of

# The stable codes of pydantic's errors, by the beginning of their type.
CODES = {
    "missing": "missing",
    "extra_forbidden": "unknown",
    "string_too_short": "empty",
    "string_too_long": "too_long",
    "greater_than": "out_of_range",
    "less_than": "out_of_range",
    "decimal_max": "out_of_range",
    "decimal_whole": "out_of_range",
    "finite_number": "out_of_range",
    "int_parsing_size": "out_of_range",
    "literal_error": "not_a_choice",
    "enum": "not_a_choice",
}
# Most of the moments of RFC 3339. Others need a calendar, such as the 29th of February; years from 9000 on are left
# out, since the last may be the year 10000 in UTC.
MOMENT = (
    r"^[1-8][0-9]{3}-((0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])|(0[13-9]|1[0-2])-(29|30)|(0[13578]|1[02])-31)"
    r"T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,6})?(Z|[+-](0[0-9]|1[0-4]):[0-5][0-9])$"
)
# Validators that Django adds by itself: _bounds has the same rules.
BOUNDED = (
    DecimalValidator,
    MaxLengthValidator,
    MaxValueValidator,
    MinValueValidator,
    ProhibitNullCharactersValidator,
)
# pydantic makes an object of 0.25 kB for each error, and errors() one of 1 kB for each.
MAX_VALUES = 10_000  # values of content in which each fault is looked for
MAX_ERRORS = 50_000  # errors of which the first are named: 1,000 items of 50 fields may have as many
COLLECTIONS = ("list", "tuple", "set", "frozenset", "dict", "deque")
# Types of values that psycopg writes as Postgres reads them.
PLAIN = (str, int, float, Decimal, datetime.date, datetime.time, UUID)
# Types that answers may have but content may not: WHOLE and _moment never make values of them.
UNREADABLE = ((models.IntegerField, Decimal), (models.DateTimeField, NaiveDatetime))


class Content(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", protected_namespaces=())


def content_of(
    schema: type[BaseModel],
    columns: Mapping[str, Column],
    *,
    name: str,
    optional: Iterable[str] = (),
    ignored: str = "",
) -> type[Content]:
    """Make a model of a write's content. `optional` fields may be missing; `ignored`, the key, may be anything."""
    fields: dict[str, Any] = {
        each: (kind_of(schema, each, column), None if each in optional else ...)
        for each, column in columns.items()
    }
    if ignored:
        fields[ignored] = (Any, None)
    return create_model(name, __base__=Content, **fields)


def quick_of(
    schema: type[BaseModel], columns: Mapping[str, Column], *, name: str, optional: Iterable[str] = ()
) -> Any:
    """Make a TypedDict for the usual form of the same content: see `is_quick` of `kind_of`."""
    fields: dict[str, Any] = {
        each: kind_of(schema, each, column, is_quick=True) for each, column in columns.items()
    }
    fields |= {each: NotRequired[fields[each]] for each in optional}
    make: Any = TypedDict  # the type checker knows only those that are written out
    made = make(name, fields)
    made.__pydantic_config__ = Content.model_config
    return made


def kind_of(schema: type[BaseModel], name: str, column: Column, *, is_quick: bool = False) -> Any:
    """Return the type of a field's value, with its bounds.

    If `is_quick`, reading a value calls few Python functions: an integer may not be 7.0, and a decimal or a moment
    must be a text of the usual form, which is left to Postgres.
    """
    info, field = schema.model_fields[name], column.field
    held, constraints, validators = _bounds(column)
    # Where answers have floats, content is read as decimals, so that no digit is lost.
    kind: Any = _exact(info.annotation) if held is Decimal else info.annotation
    described = Field(description=info.description, examples=info.examples)
    types = _types_in(kind)
    metadata = [*constraints, *info.metadata, *validators, described]
    if not isinstance(field, models.JSONField):  # a document may be of any type: Column.prepare writes it
        _refuse(f"{schema.__name__}.{name}", field, held, types)
        plain = PLAIN if held is Any else (held,)
        if not all(
            all(isinstance(value, (*plain, NoneType)) for value in get_args(each))
            if get_origin(each) is Literal
            else isinstance(each, type) and issubclass(each, plain)
            for each in types
        ):
            documented = [Field(json_schema_extra=each.json_schema_extra) for each in constraints]
            written = AsWritten(held, tuple(constraints))
            metadata = [*info.metadata, written, *documented, *validators, described]
    if is_quick:
        metadata = [each for each in metadata if each != WHOLE]
        # Postgres reads a text of the pattern as the field's type does. A field with rules of its own has no pattern.
        pattern = ""
        rules: list[dict[str, Any]] = [
            getattr(each, "__dict__", {"rule": each})
            for each in info.metadata
            if not isinstance(each, PlainSerializer | WithJsonSchema)
        ]
        if len(validators) == 1 and isinstance(field, models.DecimalField) and types == [Decimal]:
            digits = {"max_digits": field.max_digits, "decimal_places": field.decimal_places}
            if all(rule.items() <= digits.items() for rule in rules):
                pattern = str(type_of(field).schema["pattern"])
        elif len(validators) == 1 and types == [datetime.datetime] and not rules:
            pattern = MOMENT
        if pattern:
            kind, metadata = str, [Field(pattern=pattern)]
    if field.null and type(None) not in getattr(kind, "__args__", ()):
        kind |= None
    return Annotated[kind, *metadata]


@dataclass(frozen=True)
class AsWritten:
    """Turns a value that the schema's type has read into the one to write, of the type `held` and within `bounds`.

    That is the value as the schema prints it: the value of an enumeration's member, the text of a HttpUrl.
    """

    held: Any
    bounds: tuple[Any, ...]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        steps = [handler(source), core_schema.no_info_plain_validator_function(self._value)]
        held: Any = self.held
        if held is not Any:
            bounded = Annotated[(held | None, Strict(strict=False), *self.bounds)]
            steps.append(handler.generate_schema(bounded))
        return core_schema.chain_schema(steps)

    def _value(self, value: Any) -> Any:
        found = value.value if isinstance(value, Enum) else value
        if not isinstance(found, PLAIN if self.held is Any else self.held):
            found = to_jsonable_python(found)
        if isinstance(found, dict | list):
            raise PydanticCustomError("api.malformed", "must be a single value")
        return found


def _types_in(annotation: Any) -> list[Any]:
    """The types of a union, or the one type, without `| None` and Annotated."""
    if get_origin(annotation) is Annotated:
        return _types_in(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return [found for each in get_args(annotation) for found in _types_in(each)]
    return [] if annotation is NoneType else [annotation]


def _exact(annotation: Any) -> Any:
    """Return the type with Decimal in place of float."""
    if get_origin(annotation) is Annotated:
        kind, *said = get_args(annotation)
        return Annotated[(_exact(kind), *said)]
    if get_origin(annotation) in (Union, UnionType):
        return Union[tuple(map(_exact, get_args(annotation)))]  # noqa: UP007  of any number
    return Decimal if annotation is float else annotation


def _refuse(name: str, field: Any, held: Any, types: list[Any]) -> None:
    """Raise ImproperlyConfigured for a type, or a value of a Literal or an Enum, that the field can never have.

    `held` is the type of the column's values.
    """
    holds = TypeAdapter(held | None)
    for kind in types:
        values = get_args(kind) if get_origin(kind) is Literal else ()
        if isinstance(kind, type) and issubclass(kind, Enum):
            values = tuple(member.value for member in kind)
        for value in values:
            try:
                if not isinstance(value, str | int | float | bool | None):
                    raise TypeError
                holds.validate_python(value, strict=held is not Decimal)
            except (TypeError, ValidationError):
                raise ImproperlyConfigured(f"{name}: {value!r} is no JSON value for {field}.") from None
        if any(isinstance(field, of) and kind is unreadable for of, unreadable in UNREADABLE):
            raise ImproperlyConfigured(f"{name}: no JSON value for {field} is a {kind.__name__}.")


def read(content: type[Content], body: bytes) -> dict[str, Any]:
    """Return the values of the members that the content has. Raises Problem 422 with a fault for each wrong one."""
    validator = _hasty_of(content) if _is_long(body) else content.__pydantic_validator__
    try:
        return _values(validator.validate_json(body))
    except ValidationError as error:
        raise _problem(error, lambda place: ".".join(map(str, place))) from None


class Items:
    """Reads an array of `kind`, which is a model of content or the type of a value.

    Nearly all arrays are flat. The type `quick` can read these, in a third of the time for 1,000 products.
    """

    def __init__(self, kind: Any, quick: Any) -> None:
        self.kind = kind
        is_model = isinstance(kind, type) and issubclass(kind, Content)
        self.names = frozenset(kind.model_fields if is_model else ())
        config = None if is_model else ConfigDict(strict=True)
        self.exact: TypeAdapter[list[Any]] = TypeAdapter(list[kind], config=config)
        self.quick = _built(_stopping(TypeAdapter(list[quick], config=config).core_schema))

    def read_flat(self, body: bytes, most: int) -> list[Any] | None:
        """Return each item as a dictionary of values, or as a value; None if the content has to be read by `read`.

        Once spaces are removed, and if there is no backslash, each `":` ends the name of a member. If there are more
        of these than the items have members, a name comes twice.
        """
        if any(text in body for text in (b"\\", b"NaN", b"Infinity")):
            return None
        dense = body.translate(None, b" \t\n\r")
        members = dense.count(b'":')
        if members > most * len(self.names):
            return None
        try:
            found = self.quick.validate_json(body)
        except ValidationError:
            return None
        known = sum(map(len, found)) if found and isinstance(found[0], dict) else 0
        is_flat = dense.count(b"{") + dense.count(b"[") <= 1 + len(found)
        return found if 1 <= len(found) <= most and is_flat and members == known else None

    def read(self, body: bytes) -> list[Any]:
        """Return the items of any content, as `read_flat`. Raises Problem 422 with a fault for each wrong value."""
        is_long = self.names and _is_long(body)
        validator = _hasty_of(self.kind, is_array=True) if is_long else self.exact.validator
        try:
            found = validator.validate_json(body)
        except ValidationError as error:
            raise _problem(
                error, lambda place: ".".join((f"items[{place[0]}]", *map(str, place[1:])))
            ) from None
        return [_values(each) if isinstance(each, Content) else each for each in found]


def _is_long(body: bytes) -> bool:
    return body.count(b",") > MAX_VALUES


@cache
def _hasty_of(content: type[Content], *, is_array: bool = False) -> SchemaValidator:
    """Return a validator of long content, or of a long array of it.

    It names only the first fault of each list and dictionary in a field.
    """
    schema = _stopping(TypeAdapter(content).core_schema)
    return _built(core_schema.list_schema(schema) if is_array else schema)


def _built(schema: CoreSchema) -> SchemaValidator:
    """Build a validator of a schema, without the prebuilt ones of its classes: lists do not stop at a fault there."""
    return SchemaValidator(schema, CoreConfig(strict=True), _use_prebuilt=False)


def _stopping(part: Any) -> Any:
    """Return a part of a pydantic schema, with lists and dictionaries that stop at their first wrong value."""
    if isinstance(part, list):
        return [*map(_stopping, part)]
    if not isinstance(part, dict):
        return part
    ends = {"fail_fast": True} if part.get("type") in COLLECTIONS else {}
    # A default is a value, and no part of the schema, even if it is a dictionary.
    return {name: each if name == "default" else _stopping(each) for name, each in part.items()} | ends


def _values(found: Content) -> dict[str, Any]:
    values = vars(found)
    return {name: values[name] for name in found.model_fields_set}


def _problem(error: ValidationError, place_of: Callable[[Sequence[Any]], str]) -> Problem:
    if (number := error.error_count()) > MAX_ERRORS:
        return invalid([Fault(parameter="", code="malformed", detail=f"has {number} faults")])
    found = error.errors(include_url=False, include_context=False)[:MAX_FAULTS]
    if found[0]["type"] == "json_invalid":
        return Problem(400, "The content is not JSON.", code="malformed_json")
    faults = []
    for each in found:
        kind, place = each["type"], place_of(each["loc"])[:MAX_NAME_CHARACTERS]
        custom = kind.removeprefix("api.")
        code = next((code for name, code in CODES.items() if kind.startswith(name)), "malformed")
        detail = each["msg"][:1].lower() + each["msg"][1:]
        if code == "unknown":
            detail = UNKNOWN[1]
        elif code == "missing":
            detail = "is missing"
        elif each["input"] is None:
            code, detail = "null", "may not be null"
        faults.append(Fault(parameter=place, code=custom if custom != kind else code, detail=detail))
    return invalid(faults)


def _bounds(column: Column) -> tuple[Any, list[Any], list[Any]]:
    """Return the type of a column's values, or Any without bounds; then, for Annotated, bounds and validators."""
    field = target_of(column.related or column.field)
    held: Any = Any
    bounds: list[Any] = []
    validators: list[Any] = []
    if isinstance(field, models.IntegerField):
        low, high = BaseDatabaseOperations.integer_field_ranges[field.get_internal_type()]
        held, bounds, validators = int, [Field(ge=low, le=high)], [WHOLE]
    elif isinstance(field, models.DecimalField):
        # Answers have texts, since not all clients keep the digits of a number. Content may have numbers, too.
        most = 10 ** (field.max_digits - field.decimal_places) - 10**-field.decimal_places
        number = {"type": "number", "minimum": -most, "maximum": most}
        held, bounds = Decimal, [Field(max_digits=field.max_digits, decimal_places=field.decimal_places)]
        validators = [WithJsonSchema({"anyOf": [type_of(field).schema, number]})]
    elif isinstance(field, models.FloatField):
        held, bounds = float, [Field(allow_inf_nan=False)]
    elif isinstance(field, models.DateTimeField):
        validators = [BeforeValidator(_moment)]
    elif isinstance(field, models.CharField | models.TextField):
        least = 0 if field.blank or field.choices else 1
        shape = type_of(field).schema if isinstance(field, models.SlugField) and not column.related else {}
        pattern = shape.get("pattern", r"^[^\x00]*$")
        extra = {"pattern": f"^$|{pattern}" if shape and field.blank else pattern}
        extra |= {"maxLength": field.max_length} if field.max_length else {}
        held = str
        bounds = [Field(min_length=least, max_length=field.max_length, json_schema_extra=extra)]
    if column.related:
        return held, bounds, validators  # only the database knows which row the value names
    if values := choices_of(field):
        taken = {"enum": [*values, None] if field.null else values}
        validators += [AfterValidator(partial(_one_of, values)), WithJsonSchema(taken)]
    rules = [rule for rule in field.validators if type(rule) not in BOUNDED or rule in field._validators]  # noqa: SLF001
    if rules:
        validators.append(AfterValidator(partial(_kept, rules)))
    return held, bounds, validators


def _whole(value: Any) -> Any:
    """Turn 7.0 into 7: it is an integer to JSON Schema, and to clients in which all numbers are floats."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


WHOLE = BeforeValidator(_whole)


def _moment(value: Any) -> Any:
    """Read a text as a moment in any form of RFC 3339, as parameters are read."""
    if not isinstance(value, str):
        return value
    try:
        return TIMESTAMP.parse(value)
    except Malformed as error:
        raise PydanticCustomError(f"api.{error.code}", str(error)) from None


def _one_of(values: list[Any], value: Any) -> Any:
    if value is not None and value not in values:
        known = ", ".join(str(each) or '""' for each in values)
        raise PydanticCustomError("api.not_a_choice", f"must be one of {known}")
    return value


def _kept(rules: list[Any], value: Any) -> Any:
    """Run the validators of the model's field, which Postgres lacks. As in Django, they see no empty value."""
    if value not in (None, ""):  # a tuple, since a set cannot look for a dict
        for rule in rules:
            try:
                rule(value)
            except Invalid as error:
                detail = " ".join(error.messages)
                raise PydanticCustomError(
                    f"api.{error.code or 'malformed'}", "{detail}", {"detail": detail}
                ) from None
    return value
