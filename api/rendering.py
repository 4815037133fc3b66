"""Rows as JSON, written by the schema's own serialisers, whatever fields and layout a request asks for."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Annotated, Any

from pydantic import BaseModel, TypeAdapter, create_model

from api.listing import Listing

Row = tuple[Any, ...]


def items(listing: Listing, fields: tuple[str, ...], names: tuple[str, ...], rows: Sequence[Row]) -> bytes:
    """One object a row. `names` are the ORM paths of a row's values."""
    item, adapter, positions = _item(listing, fields, names)
    return adapter.dump_json(
        [item.model_construct(**{field: row[at] for field, at in positions}) for row in rows]
    )


def item(listing: Listing, fields: tuple[str, ...], row: Row) -> bytes:
    """One row as an object; its values are those of the fields' columns."""
    names = tuple(listing.columns[field] for field in fields)
    return items(listing, fields, names, [row])[1:-1]


def columns(listing: Listing, fields: tuple[str, ...], names: tuple[str, ...], rows: Sequence[Row]) -> bytes:
    """One array a field: a third of the bytes, since no name is repeated."""
    _, _, positions = _item(listing, fields, names)
    table, adapter = _table(listing, fields)
    arrays: dict[str, Any] = {field: [row[at] for row in rows] for field, at in positions}
    return adapter.dump_json(table.model_construct(**arrays))


@lru_cache(maxsize=256)
def _item(
    listing: Listing, fields: tuple[str, ...], names: tuple[str, ...]
) -> tuple[type[BaseModel], TypeAdapter[Any], list[tuple[str, int]]]:
    types: dict[str, Any] = {field: (_type(listing, field), ...) for field in fields}
    item = create_model("Item", **types)
    positions = [(field, names.index(listing.columns[field])) for field in fields]
    return item, TypeAdapter(list[item]), positions  # type: ignore[valid-type]


@lru_cache(maxsize=256)
def _table(listing: Listing, fields: tuple[str, ...]) -> tuple[type[BaseModel], TypeAdapter[Any]]:
    types: dict[str, Any] = {field: (list[_type(listing, field)], ...) for field in fields}  # type: ignore[misc]
    table = create_model("Table", **types)
    return table, TypeAdapter(table)


def _type(listing: Listing, field: str) -> Any:
    """The field's type with its serialisers."""
    info = listing.schema.model_fields[field]
    return Annotated[info.annotation, *info.metadata] if info.metadata else info.annotation
