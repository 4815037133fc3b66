"""What Python itself reads and writes as JSON: bodies, and answers that no compiled query made."""

import datetime
import json
import uuid
from decimal import Decimal
from enum import Enum
from typing import Any

import pytest
from django.http import HttpRequest
from ninja.renderers import JSONRenderer

from api.json import OrjsonParser, OrjsonRenderer


class Colour(Enum):
    RED = "red"


def request(body: bytes) -> HttpRequest:
    made = HttpRequest()
    made._body = body
    return made


@pytest.mark.parametrize(
    "body", [b"{}", b'{"a": [1, 2.5, null, "\xc3\xa9"]}', b"[]", b'"text"', b"9007199254740993"]
)
def test_reads_json(body: bytes) -> None:
    assert OrjsonParser().parse_body(request(body)) == json.loads(body)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"NaN",
        b"[Infinity]",
        b'"\xff"',
        b'"\xed\xa0\x80"',
        b'"\\ud800"',
        b"[" * 100_000,
        b"{'a': 1}",
        b"[1,]",
    ],
    ids=lambda body: repr(body[:12]),
)
def test_refuses_what_is_no_json(body: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  orjson's error is one, and Ninja catches any
        OrjsonParser().parse_body(request(body))


@pytest.mark.parametrize(
    "value",
    [
        {"a": [1, 2.5, None, True, "é\u2028"], 2: 3},
        {
            "at": datetime.datetime(2020, 1, 1, 0, 0, 13, 370000, datetime.UTC),
            "on": datetime.date(2020, 1, 2),
        },
        [Decimal("12.50"), uuid.UUID(int=1), datetime.timedelta(days=1, seconds=1), Colour.RED.value],
    ],
)
def test_writes_what_ninja_writes(value: Any) -> None:
    written = OrjsonRenderer().render(request(b""), value, response_status=200)
    assert json.loads(written) == json.loads(JSONRenderer().render(request(b""), value, response_status=200))
