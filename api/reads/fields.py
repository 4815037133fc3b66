"""Field types for schemas that print the same JSON as Postgres does.

A value has the same text in every representation: list, detail, reply to a write, export.
"""

import datetime
from decimal import Decimal
from typing import Annotated

from pydantic import PlainSerializer, WithJsonSchema

from ops.postgres import aggregates
from ops.postgres.json_sql import temporal

# Postgres writes a plain `datetime.datetime` in the same way. This type says so in the OpenAPI document, and makes
# model_dump do the same.
Timestamp = Annotated[
    datetime.datetime,
    PlainSerializer(temporal, return_type=str),
    WithJsonSchema(
        {
            "type": "string",
            "format": "date-time",
            "description": "In UTC (+00:00), always with six digits of the second's fraction.",
        },
        mode="serialization",
    ),
]


def rounded(places: int) -> PlainSerializer:
    """Return a serialiser of decimals with this number of places, such as "249.98".

    It is for averages, `Annotated[Decimal, rounded(2)]`: an average has 16 digits or more, which Python and Postgres
    spell in different ways.
    """

    def spell(value: Decimal) -> str:
        return aggregates.rounded(value, places)

    return PlainSerializer(spell, return_type=str)
