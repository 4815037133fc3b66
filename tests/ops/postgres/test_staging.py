"""Lines of every kind: an import takes what a single row takes, and leaves it as a single row would."""

import asyncio
import datetime
import json
import secrets
import uuid
from collections.abc import AsyncIterator
from decimal import Decimal
from enum import Enum
from functools import partial
from typing import Annotated, Any, Literal

import pytest
from asgiref.sync import async_to_sync
from django.core.exceptions import ImproperlyConfigured
from django.core.validators import MinValueValidator
from django.db import connection, models
from django.db.models import Value
from django.db.models.functions import Now
from ninja import Schema
from psycopg.errors import UniqueViolation
from pydantic import AfterValidator, Field

from api.problems import Problem
from api.writes import content
from api.writes.inputs import content_of, read
from ops.postgres import load as load_module
from ops.postgres.commands import Insert
from ops.postgres.load import Conflict, Load
from ops.postgres.long_transaction import long_transaction
from ops.postgres.staging import Staging
from tests.ops.postgres.models import Everything, Grade, Label, Spelled
from tests.shop.models import Voucher
from tests.shop.schemas import VoucherOut

pytestmark = pytest.mark.django_db


class LabelOut(Schema):
    key: str
    rank: int


def schema(**fields: Any) -> Any:
    return type("Made", (Schema,), {"__annotations__": fields})


# Fields of every kind, as requests may spell them.
KINDS: dict[str, Any] = {
    "text": str | None,
    "char": Annotated[str, Field(min_length=2, max_length=5)],
    "slug": str,
    "colour": str,
    "grade": int,
    "small": int,
    "integer": Annotated[int, Field(gt=-5, lt=5)] | None,
    "big": int,
    "positive_small": int,
    "positive_big": int,
    "maybe": bool | None,
    "float": float | None,
    "price": Decimal | None,
    "fine": Decimal,
    "uuid": uuid.UUID | None,
    "date": datetime.date | None,
    "moment": datetime.datetime | None,
    "time": datetime.time | None,
    "document": dict[str, Any] | None,
}
NAMES = [*KINDS]
Written = schema(**KINDS, label_id=str | None)

# In JSON, for each field: those that are taken, and those that are not, between them all that one may get wrong.
VALUES: dict[str, list[str]] = {
    "text": [
        *("null", '""', '" \\"a\\" \\\\ é😀 %s $1 \\u2028"', '"\\u00e9"'),
        *("7", "true", "[]", '"a\\u0000"', '"\\ud800"'),
    ],
    "char": ["null", '"a"', '"ab"', '"abcde"', '"abcdef"', '"é😀é😀é"'],
    "slug": ['"a_-Z9"', '""', '"a b"', '"a\\n"', '"é"', f'"{"x" * 51}"'],
    "colour": ['"red"', '"bl\'ue\\\\"', '"Red"', '""', "null"],
    "grade": ["-1", "7", "0", '"7"', "7.0", "-1.0e0", "700e-2"],
    "small": ["-32768", "32767", "-32769", "32768", "1.5", "1e3", "0.1e1", "-0", "true", '""', "1" + "0" * 4000],
    "integer": ["null", "-5", "-4", "4", "5", "5.0", "4.0"],
    "big": [str(2**63 - 1), str(2**63), str(-(2**63)), "9.2e18", "{}"],
    "positive_small": ["0", "-1", "32767"],
    "positive_big": [str(2**63 - 1), "-1"],
    "maybe": ["true", "false", "null", "0", '"true"'],
    "float": ["1.5", "-1e-7", "1e300", "1e400", "7", '"1.5"', "null"],
    "price": ["12.5", '"12.5"', '"-12.500"', '"1.555"', "99999.99", "100000", '"1e4"', '"NaN"', '"x"', '""', "true"],
    "fine": ['"0.000001"', '"0.0000001"', "1e-6", "1" + "0" * 33, "1" + "0" * 34],
    "uuid": [f'"{uuid.UUID(int=7)}"', '"7"', "7"],
    "date": ['"0099-01-02"', '"2024-02-29"', '"2023-02-29"', '"today"', '"2024-2-29"', "20240229"],
    "moment": [
        *('"2020-01-01T00:00:13.37Z"', '"2020-01-01t00:00:13z"', '"2020-01-01T00:00:13.370000+00:00"'),
        *('"2020-01-01T01:00:00+01:30"', '"2020-01-01T00:00:13"', '"2020-01-01 00:00:13Z"', '"2020-01-01T24:00:00Z"'),
        *('"2020-13-01T00:00:13Z"', '"now"', "1577836800", '"2020-01-01T00:00:00+24:00"'),
        *('"9999-12-31T23:59:59.999999Z"', '"9999-12-31T23:59:59-01:00"', '"9999-12-31T23:59:60Z"'),
        *('"0001-01-01T00:00:00Z"', '"0001-01-01T00:00:00+01:00"', '"0000-12-31T23:59:59Z"'),
        *('"2016-12-31T23:59:60Z"', '"2017-01-01T00:59:60+01:00"', '"2020-01-01T00:00:60Z"'),
        *('"2020-01-01T00:00:001Z"', '"2020-01-01T00:00:1 Z"', '"2020-01-1qT00:00:00Z"', '"2020-01-01T1.:00:00Z"'),
        *('"2020-01-01T00:00:00.Z"', '"2020-01-01T00:00:0.Z"', '"2020-01-01T00:00:00Z5"', '"2020-01-01T00:60:00Z"'),
    ],
    "time": [
        *('"13:37:00"', '"13:37:00.5"', '"13:37"', '"25:00:00"', "7", '"noon"'),
        *('"23:59:59.999999"', '"24:00"', '"23:59:60"', '"13:60:00"'),
    ],
    "document": [
        *('{"a":[1,"b\'",null,true,1.50]}', "{}", "[]", '"{}"', "1", '{"a":{"a":1,"a":2}}', '{"a":"\\u0000"}'),
        *('{"a":' * 63 + "{}" + "}" * 63, '{"a":' * 62 + "{}" + "}" * 62, '{"a":' + "[" * 62 + "]" * 62 + "}"),
    ],
}  # fmt: skip


def load(plan: Staging, lines: bytes, *, is_csv: bool = False) -> list[int]:
    """Insert the good lines of a stream; returns the numbers of the others. In the test's transaction."""

    async def pieces() -> AsyncIterator[bytes]:
        yield lines[: len(lines) // 2]
        await asyncio.sleep(0)
        yield lines[len(lines) // 2 :]

    async def run() -> list[int]:
        async with long_transaction() as transaction:
            one = Load(plan, transaction.connection)
            await one.receive(pieces(), is_csv=is_csv)
            await one.convert()
            wrong = await one.wrong_lines(1000)
            await transaction.connection.execute('DELETE FROM "import rows" WHERE "import fault" IS NOT NULL')
            await one.insert(10)
            await transaction.commit()
            return [each.line for each in wrong]

    return async_to_sync(run)()


@pytest.mark.usefixtures("tables")
def test_values_of_every_kind() -> None:
    """Each is taken or refused as in the content of a request, and stored as the ORM reads it there."""
    insert = Insert(Everything, Written, NAMES)
    columns = {name: insert.columns[name] for name in NAMES}
    model = content_of(Written, columns, name="Creation", optional=NAMES)
    lines: list[str] = []
    expected: list[dict[str, Any] | None] = []
    for name, values in VALUES.items():
        for value in values:
            lines.append(f'{{"{name}":{value}}}')
            try:
                expected.append(read(model, content.check(lines[-1].encode(), model.model_fields)))
            except Problem:
                expected.append(None)
    wrong = load(Staging(insert, Written), "\n".join(lines).encode())
    assert [lines[line - 1] for line in wrong] == [
        line for line, taken in zip(lines, expected, strict=True) if taken is None
    ]
    stored = list(Everything.objects.order_by("id"))
    for row, taken in zip(stored, [each for each in expected if each is not None], strict=True):
        [(name, value)] = taken.items()
        assert getattr(row, name) == value, name
    assert min(len(stored), len(wrong)) > 50
    assert (stored[0].grade, stored[0].binary, stored[0].shouted, stored[0].colour) == (-1, b"", "", "red")


@pytest.mark.usefixtures("tables")
def test_times_that_are_rounded() -> None:
    """A time whose fraction is rounded beyond the last one is refused: Python could not read it."""
    plan = Staging(Insert(Everything, Written, NAMES), Written)
    times = ("9999-12-31T23:59:59.9999994Z", "9999-12-31T23:59:59.9999999Z", "2020-01-01T00:00:59.9999999Z")
    lines = [{"moment": each} for each in times]
    lines += [{"time": each} for each in ("23:59:59.9999994", "23:59:59.9999999")]
    assert load(plan, "\n".join(map(json.dumps, lines)).encode()) == [2, 5]
    stored = [row.moment or row.time for row in Everything.objects.order_by("id")]
    assert [each.isoformat() for each in stored] == [
        *("9999-12-31T23:59:59.999999+00:00", "2020-01-01T00:01:00+00:00", "23:59:59.999999"),
    ]


@pytest.mark.usefixtures("tables")
def test_cells_of_every_kind() -> None:
    """The same values as texts, where JSON has them as numbers or words."""
    plan = Staging(Insert(Everything, Written, NAMES), Written)
    cells = {
        "text": '"a ""b"", \\ é"',
        "char": "abc",
        "slug": "a-b",
        "colour": '"bl\'ue\\"',
        "grade": "7",
        "small": "-7",
        "integer": "4.0",
        "big": str(2**63 - 1),
        "positive_small": "007",
        "maybe": "true",
        "float": "-1e-7",
        "price": "12.5",
        "fine": "1e-6",
        "uuid": str(uuid.UUID(int=7)),
        "date": "2024-02-29",
        "moment": "2020-01-01T01:00:00+01:00",
        "time": "13:37:00.5",
        "document": '"{""a"": [1, null]}"',
    }
    empty = dict.fromkeys(cells, "")
    rows = [cells, empty, cells | {"document": "null"}]
    bad = [
        *({"text": '""'}, {"slug": '""'}),
        *({"maybe": "t"}, {"document": "[]"}, {"document": '"{""a"":1,""a"":2}"'}, {"document": "{"}),
        {"document": "[" * 30_000 + "]" * 30_000},  # of which Postgres itself would not name the line
        *({"price": "NaN"}, {"price": "0x1"}, {"date": "epoch"}, {"moment": "infinity"}, {"big": str(2**63)}),
        *({"uuid": "{" + str(uuid.UUID(int=7)) + "}"}, {"time": "now"}, {"float": "inf"}, {"small": "1_0"}),
    ]
    rows += [cells | each for each in bad]
    table = "\n".join(",".join(row) for row in ([*cells], *(row.values() for row in rows)))
    assert load(plan, table.encode(), is_csv=True) == [*range(5, 5 + len(bad))]
    one, nothing, other = Everything.objects.order_by("id")
    assert (one.text, one.colour, one.small, one.integer, one.positive_small) == (
        'a "b", \\ é',
        "bl'ue\\",
        -7,
        4,
        7,
    )
    assert (one.maybe, one.float, one.price, one.fine) == (True, -1e-7, Decimal("12.5"), Decimal("0.000001"))
    assert (one.moment.isoformat(), one.time) == (
        "2020-01-01T00:00:00+00:00",
        datetime.time(13, 37, 0, 500000),
    )
    assert one.document == {"a": [1, None]}
    assert (nothing.text, nothing.char, nothing.colour, nothing.document) == (None, "", "red", None)
    assert other.document is None


@pytest.mark.usefixtures("tables")
def test_rows_that_others_name() -> None:
    for at in range(3):
        Label.objects.create(key=f"leaf {at}", rank=at)
    plan = Staging(Insert(Everything, Written, ["label_id"]), Written)
    lines = [{"label_id": "leaf 1"}, {"label_id": "leaf 7"}, {"label_id": None}, {}, {"label_id": 1}]
    assert load(plan, "\n".join(map(json.dumps, lines)).encode()) == [2, 5]
    assert [row.label_id for row in Everything.objects.order_by("id")] == ["leaf 1", None, None]


@pytest.mark.usefixtures("tables")
def test_a_conflict_behind_the_first_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names the lines that repeat a row: those that were inserted before are none of them."""
    monkeypatch.setattr(load_module, "BATCH_BYTES", 8192)
    Label.objects.create(key="there", rank=0)
    plan = Staging(Insert(Label, LabelOut), LabelOut)
    keys = [f"key {at}" for at in range(1000)]
    keys[700], keys[900] = keys[10], "there"
    lines = "\n".join(json.dumps({"key": key, "rank": 1}) for key in keys)
    with pytest.raises(Conflict) as caught:
        load(plan, lines.encode())
    assert caught.value.lines == [701, 901]


@pytest.mark.usefixtures("tables")
def test_a_conflict_in_a_key_that_postgres_makes() -> None:
    """Its sequence is behind the rows: no line is at fault, and the error is the one of a single row."""
    own = schema(text=str | None)
    plan = Staging(Insert(Everything, own, ["text"]), own)
    Everything.objects.bulk_create(Everything(id=at) for at in range(1, 100))
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT setval(pg_get_serial_sequence(%s, 'id'), 1, false)", [Everything._meta.db_table]
        )
    with pytest.raises(Conflict) as caught:
        load(plan, b'{"text":"a"}\n{"text":"b"}')
    assert isinstance(caught.value.error, UniqueViolation)
    assert caught.value.error.diag.constraint_name == f"{Everything._meta.db_table}_pkey"


class Size(Enum):
    SMALL = "s"
    LARGE = "l"


@pytest.mark.usefixtures("tables")
def test_choices_of_the_schema() -> None:
    """Texts and numbers, of which a line is refused those that the content of a request is."""
    for name in ("leaf 1", "leaf 2"):
        Label.objects.create(key=name, rank=0)
    own = schema(
        char=Size,
        grade=Grade,
        small=Literal[1, 2] | None,
        label=Annotated[Literal["leaf 1"], Field(alias="label.key")],
    )
    insert = Insert(Everything, own)
    columns = {name: insert.columns[name] for name in own.model_fields}
    model = content_of(own, columns, name="Creation", optional=columns)
    lines = [
        f'{{"{name}":{value}}}'
        for name, values in {
            "char": ['"s"', '"l"', '"SMALL"', '""', "1"],
            "grade": ["-1", "7", "7.0", "1", '"7"'],
            "small": ["1", "2.0", "3", '"1"'],
            "label": ['"leaf 1"', '"leaf 2"', "1"],
        }.items()
        for value in values
    ]
    refused = []
    for line in lines:
        try:
            read(model, line.encode())
        except Problem:
            refused.append(line)
    assert len(refused) == 9
    assert [lines[line - 1] for line in load(Staging(insert, own), "\n".join(lines).encode())] == refused
    assert [row.grade for row in Everything.objects.exclude(grade=-1)] == [7, 7]


class Ruled(Spelled):
    number = models.IntegerField(validators=[MinValueValidator(3)])
    code = models.CharField(max_length=9, default=secrets.token_hex)
    email = models.EmailField(default="")

    class Meta:
        app_label = "spelled"


def plan(kind: Any, name: str = "number", **defaults: Any) -> Staging:
    own = schema(**{name: kind})
    return Staging(Insert(Ruled, own, defaults={"code": "x", "number": 3} | defaults), own)


def test_what_only_python_can_do_is_refused_as_it_is_declared() -> None:
    assert "t0::integer >= 3" in plan(int).conversion(None, tests_first=False)
    assert "IN ('s', 'l')" in plan(Size, "code").conversion(None, tests_first=False)
    assert "IN ('a')" in plan(Literal["a"], "code").conversion(None, tests_first=False)
    for kind, name, said in (
        (
            Annotated[int, AfterValidator(int)],
            "number",
            r"Made.number: an import cannot apply .*, which only Python",
        ),
        (Annotated[str, Field(pattern="^a")], "code", r"Made.code: an import cannot apply .*pattern='\^a'"),
        (str, "email", r"Made.email: an import cannot apply .*EmailValidator"),
        (int | str, "number", r"Made.number: an import cannot read a int \| str for spelled.Ruled.number"),
    ):
        with pytest.raises(ImproperlyConfigured, match=said):
            plan(kind, name)


def test_bounds_at_the_ends_of_a_type() -> None:
    """The cast itself refuses what is beyond an end, but takes the end, which a strict bound does not."""
    for bounds, rule in (
        (Field(lt=2**31 - 1), f"t0::integer < {2**31 - 1}"),
        (Field(gt=-(2**31)), f"t0::integer >  {-(2**31)}"),
        (Field(ge=2**31 - 1), f"t0::integer >= {2**31 - 1}"),
    ):
        assert rule in plan(Annotated[int, bounds]).conversion(None, tests_first=False)


class Listed(Spelled):
    texts = models.JSONField(default=list)
    name = models.CharField(max_length=9, default="")

    class Meta:
        app_label = "spelled"


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("texts", Annotated[list, Field(max_length=2)]),
        ("texts", Annotated[dict, Field(min_length=1)]),
        ("name", Annotated[str, Field(gt="a")]),  # Postgres has an order of its own for texts
    ],
)
def test_bounds_that_postgres_would_read_otherwise(name: str, kind: Any) -> None:
    own = schema(**{name: kind})
    with pytest.raises(ImproperlyConfigured, match=f"Made.{name}: an import cannot apply"):
        Staging(Insert(Listed, own), own)


def test_defaults() -> None:
    """A constant, or an expression that Postgres computes for each row: not a function of Python's."""
    own = schema(number=int)
    Staging(Insert(Ruled, own, defaults={"code": Value("c")}), own)
    with pytest.raises(
        ImproperlyConfigured, match=r"spelled.Ruled.code: an import cannot call token_hex\(\)"
    ):
        Staging(Insert(Ruled, own), own)
    with pytest.raises(ImproperlyConfigured, match=r"cannot call functools.partial\(.*\)\(\) for each row"):
        Staging(Insert(Ruled, own, defaults={"code": partial(secrets.token_hex, 4)}), own)
    fields = ["code", "percent", "category"]
    Staging(Insert(Voucher, VoucherOut, fields, defaults={"created": Now(), "note": "n"}), VoucherOut)
    with pytest.raises(ImproperlyConfigured, match=r"cannot call token_hex\(\)"):
        Staging(Insert(Voucher, VoucherOut, fields, defaults={"note": secrets.token_hex}), VoucherOut)
    with pytest.raises(
        ImproperlyConfigured, match=r"VoucherOut.category: an import needs a value as its default"
    ):
        Staging(Insert(Voucher, VoucherOut, fields, defaults={"category": Value(1)}), VoucherOut)
