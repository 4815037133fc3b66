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
from pydantic import BaseModel

from api.orjson_renderer import OrjsonParser, OrjsonRenderer


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


LONG = [2**63, 2**64 - 1, -(2**63), 2**64, 2**64 + 1, -(2**63) - 1, 10**300, -(10**300)]


@pytest.mark.parametrize("number", LONG)
def test_an_integer_has_no_bound(number: int) -> None:
    assert OrjsonParser().parse_body(request(b'{"a": [%d]}' % number)) == {"a": [number]}
    assert OrjsonParser().parse_body(request(b'["%d"]' % number)) == [str(number)]
    written = OrjsonRenderer().render(request(b""), {"a": [number]}, response_status=200)
    assert written == b'{"a":[%d]}' % number


def test_what_stands_beside_a_long_integer_is_written_as_ever() -> None:
    class Model(BaseModel):
        number: int

    rest: Any = {
        "at": datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC),
        2: (None, True, 1.5, "é\u2028", Decimal("1.50"), float("nan")),
        "colour": Colour.RED,
        uuid.UUID(int=1): [{}],
    }
    plain = OrjsonRenderer().render(request(b""), rest, response_status=200)
    number = 2**70
    data = {**rest, "last": Model(number=number), number: number}
    written = OrjsonRenderer().render(request(b""), data, response_status=200)
    assert written == plain[:-1] + b',"last":{"number":%d},"%d":%d}' % (number, number, number)


@pytest.mark.parametrize("value", [{"a": object()}, {"a": "\ud800"}, [2**70, object()]])
def test_what_is_no_json_is_an_error_still(value: Any) -> None:
    with pytest.raises(TypeError):
        OrjsonRenderer().render(request(b""), value, response_status=200)


@pytest.mark.parametrize(
    "value",
    [
        {"a": [1, 2.5, None, True, "é\u2028"], 2: 3},
        {"on": datetime.date(2020, 1, 2)},
        [Decimal("12.50"), uuid.UUID(int=1), Colour.RED.value],
    ],
)
def test_writes_what_ninja_writes(value: Any) -> None:
    written = OrjsonRenderer().render(request(b""), value, response_status=200)
    assert json.loads(written) == json.loads(JSONRenderer().render(request(b""), value, response_status=200))


def test_moments_and_durations_are_written_as_compiled_answers_have_them() -> None:
    value = [
        datetime.datetime(2020, 1, 1, 0, 0, 13, 370000, datetime.UTC),
        datetime.time(1, 2),
        datetime.timedelta(days=1, seconds=1),
    ]
    written = OrjsonRenderer().render(request(b""), value, response_status=200)
    assert json.loads(written) == ["2020-01-01T00:00:13.370000+00:00", "01:02:00.000000", "P1DT1S"]
