"""Objects and lists in a schema, and how many rows a list has at most.

    class OrderOut(Schema):
        id: int
        customer: CustomerOut | None                                     # the row that a foreign key names
        total: Money                                                     # columns of the row itself, by their aliases
        lines: Annotated[list[LineOut], Children(order_by="position")]   # the rows that refer to it
        lines_more: Annotated[bool, More("lines")] = False               # whether there are more than the limit

ops/postgres/compiled.py has Postgres write them, in the statement of the row itself.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, NamedTuple, TypeVar, Union, get_args, get_origin

from django.core.exceptions import ImproperlyConfigured
from pydantic import BaseModel, GetJsonSchemaHandler
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema

MAX_CHILDREN = 100  # of a list that has no limit of its own

Marker = TypeVar("Marker")


@dataclass(frozen=True, init=False)
class Children:
    """The order of the related rows in a list, and how many of them it has at most.

    Without `order_by`, the rows have the order of their model's Meta. Rows with equal values are ordered by primary
    key, in the direction of the last field.
    """

    order_by: tuple[str, ...]
    limit: int

    def __init__(self, order_by: str | Sequence[str] = (), *, limit: int = MAX_CHILDREN) -> None:
        if limit < 1:
            raise ImproperlyConfigured(f"The limit of a list must be at least 1, not {limit}.")
        names = (order_by,) if isinstance(order_by, str) else tuple(order_by)
        object.__setattr__(self, "order_by", names)
        object.__setattr__(self, "limit", limit)

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return handler(schema) | {"maxItems": self.limit}


@dataclass(frozen=True)
class More:
    """A boolean field: whether there are more related rows than the list `of` has."""

    of: str


class Declared(NamedTuple):
    """The type of a schema's field that is an object of `schema`, or a list of them."""

    schema: type[BaseModel]
    is_list: bool
    may_be_null: bool


def schema_in(schema: type[BaseModel], name: str) -> Declared | None:
    """Return the schema of a field's object, or of the objects in its list; None for a field of any other type."""
    of: Any = schema.model_fields[name].annotation
    may_be_null = False
    if get_origin(of) in (Union, UnionType):
        others = [each for each in get_args(of) if each is not NoneType]
        if len(others) == 1:
            [of], may_be_null = others, True
    of = _bare(of)
    is_list = get_origin(of) is list
    if is_list:
        (of,) = get_args(of)
        of = _bare(of)
    if not isinstance(of, type) or not issubclass(of, BaseModel) or (is_list and may_be_null):
        return None
    return Declared(of, is_list, may_be_null)


def _bare(annotation: Any) -> Any:
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


def marker_of(schema: type[BaseModel], name: str, kind: type[Marker]) -> Marker | None:
    """Return the marker of this kind in the annotation of a field, or None."""
    return next((each for each in schema.model_fields[name].metadata if isinstance(each, kind)), None)


def refuse_conversions(schema: type[BaseModel], name: str) -> None:
    """Raise ImproperlyConfigured if the schema converts, checks or leaves out this object or list."""
    info, decorators = schema.model_fields[name], schema.__pydantic_decorators__
    functions: list[Any] = [*decorators.field_serializers.values(), *decorators.field_validators.values()]
    if (
        hasattr(schema, f"resolve_{name}")
        or info.exclude
        or any(not isinstance(each, Children) for each in info.metadata)
        or any(_metadata(info.annotation))
        or any({name, "*"} & {*each.info.fields} for each in functions)
    ):
        raise ImproperlyConfigured(
            f"{schema.__name__}.{name}: Postgres cannot call what converts or checks it."
        )


def _metadata(annotation: Any) -> Iterator[Any]:
    """Yield the metadata of each Annotated in a type, such as around a member of a union or the items of a list."""
    inner = get_args(annotation)
    if get_origin(annotation) is Annotated:
        inner = inner[:1]
        for each in annotation.__metadata__:
            # A Field without rules only describes the type, in the OpenAPI document.
            if not isinstance(each, FieldInfo) or each.metadata or each.exclude:
                yield each
    for each in inner:
        yield from _metadata(each)
