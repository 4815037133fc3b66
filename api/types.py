"""Value types for schemas whose JSON spelling equals Postgres's own.

Every representation of a value (list, detail, reply to a write, export) has one spelling, whoever writes it.
"""

import datetime
from typing import Annotated

from pydantic import PlainSerializer, WithJsonSchema


def postgres_timestamp(value: datetime.datetime) -> str:
    """As to_json(timestamptz) prints it under TimeZone=UTC: trailing zeros of the fraction are left out."""
    text = value.astimezone(datetime.UTC).isoformat()
    return text[:19] + text[19:-6].rstrip("0") + text[-6:]


Timestamp = Annotated[
    datetime.datetime,
    PlainSerializer(postgres_timestamp, return_type=str),
    WithJsonSchema({"type": "string", "format": "date-time"}, mode="serialization"),
]
