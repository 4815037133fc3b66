"""Ordered rows of a compiled queryset as a JSON array: the shortest way to look at `Columns` and `row`."""

from collections.abc import Iterable
from typing import Any

from django.db.models import QuerySet
from pydantic import BaseModel

from ops.postgres.compiled import Columns, row


class Many:
    def __init__(
        self,
        queryset: "QuerySet[Any]",
        schema: type[BaseModel],
        fields: Iterable[str] | None = None,
        *,
        limit: int,
    ) -> None:
        names = schema.model_fields if fields is None else fields
        self.rows = Columns(queryset, [row(queryset.model, schema, names)], limit=limit)

    async def __call__(self, **values: Any) -> bytes:
        (text,), _ = await self.rows.fetch(self.rows.statement.bind(values))
        return b"[%b]" % text
