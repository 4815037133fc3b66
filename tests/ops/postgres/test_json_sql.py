"""Postgres prints a value as the schema does, whatever the value: stored by the ORM, written by both, compared."""

import datetime
import ipaddress
import sys
import uuid
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Annotated, Any, Literal

import orjson
import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import connection
from django.db.models.functions import Lower
from django.http import HttpRequest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ninja import Schema
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    HttpUrl,
    IPvAnyAddress,
    PlainSerializer,
    StringConstraints,
    create_model,
    field_validator,
)

from api.orjson_renderer import OrjsonRenderer
from api.reads.fields import Timestamp
from api.reads.list_query import Layout
from ops.postgres import through_django
from ops.postgres.compiled import Cell, One, compile_queryset
from ops.postgres.statement import Statement
from tests.ops.postgres.conftest import Run
from tests.ops.postgres.models import Colour, Everything, Grade, Label, Odd, Sticker
from tests.shop.models import Category

pytestmark = pytest.mark.django_db

# Postgres holds no NUL, and UTF-8 no lone surrogate.
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
NASTY = st.sampled_from(
    ['"', "\\", "'", "\n", "\r\n", "\x7f\x01\x1f", "\u2028\u2029", "😀", "%s", "$1", "{}", "/"]
)
ANY_TEXT = st.one_of(TEXT, st.lists(NASTY).map("".join))
FLOATS = st.floats()
MOMENTS = st.datetimes(
    datetime.datetime(1, 1, 2),  # noqa: DTZ001  # hypothesis wants its bounds so
    datetime.datetime(9999, 12, 30),  # noqa: DTZ001
    timezones=st.just(datetime.UTC),
)
ADDRESSES = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)).map(str)
JSON: Any = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**53), 2**53),
        st.floats(allow_nan=False, allow_infinity=False),
        ANY_TEXT,
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(ANY_TEXT, inner, max_size=3)),
    max_leaves=8,
)


def decimals(digits: int, places: int) -> Any:
    """Exact, whatever the precision of the context."""
    most = 10**digits - 1
    return st.one_of(st.integers(-most, most), st.sampled_from([0, 1, -1, most])).map(
        lambda value: Decimal(f"{value}E{-places}")
    )


Plain = Annotated[Decimal, PlainSerializer(lambda value: f"{value:f}", return_type=str)]
AsFloat = Annotated[Decimal, PlainSerializer(float, return_type=float)]


def fractions(of: Any) -> Any:
    """Fractions of every number of digits, which at random nearly always are six."""
    cut = st.tuples(of, st.integers(0, 6))
    return cut.map(lambda it: it[0].replace(microsecond=it[0].microsecond // 10 ** it[1] * 10 ** it[1]))


def optional(of: Any) -> Any:
    return st.one_of(st.none(), of)


# A field of Everything, the schema's annotation, and the values.
EXACT: list[tuple[str, Any, Any]] = [
    ("text", str | None, optional(ANY_TEXT)),
    ("char", str, ANY_TEXT.map(lambda text: text[:200])),
    ("slug", Annotated[str, Field(max_length=50)], st.from_regex(r"[-a-zA-Z0-9_]{1,50}", fullmatch=True)),
    ("slug", Annotated[str, Field(pattern="^[0-9]{5}$")], st.just("01234")),
    (
        "slug",
        Annotated[str, Field(pattern="^[0-9]{5}$", examples=["01234"]), AfterValidator(lambda text: text)],
        st.just("01234"),
    ),
    ("email", str, st.emails().filter(lambda email: len(email) < 255)),
    ("url", str, st.just("https://example.org/?a=%20&b='\"")),
    ("url", HttpUrl, st.just("https://example.org/?a=%20")),
    ("colour", Colour, st.sampled_from(Colour)),
    ("colour", Literal["red", "bl'ue\\"], st.sampled_from(Colour)),
    ("colour", str, st.sampled_from(Colour)),
    ("grade", Grade, st.sampled_from(Grade)),
    ("grade", Literal[-1, 7], st.sampled_from(Grade)),
    ("small", int, st.integers(-(2**15), 2**15 - 1)),
    ("integer", Annotated[Decimal, Field(ge=1, le=5)], st.integers(1, 5)),
    ("integer", Annotated[int, Field(ge=50, le=60)] | None, st.integers(50, 60)),
    ("integer", int | None, optional(st.integers(-(2**31), 2**31 - 1))),
    ("big", int, st.integers(-(2**63), 2**63 - 1)),
    ("big", Annotated[int, PlainSerializer(str)], st.integers(-(2**63), 2**63 - 1)),
    ("positive_small", Annotated[int, Field(ge=0)], st.integers(0, 2**15 - 1)),
    ("positive", Annotated[int, Field(ge=0)], st.integers(0, 2**31 - 1)),
    ("positive_big", Annotated[int, Field(ge=0)], st.integers(0, 2**63 - 1)),
    ("yes", bool, st.booleans()),
    ("maybe", bool | None, optional(st.booleans())),
    ("price", Decimal | None, optional(decimals(7, 2))),
    ("price", Plain | None, optional(decimals(7, 2))),
    # Examples are JSON, in any spelling that the type reads.
    ("price", Annotated[Decimal, Field(ge=100, examples=["150"])], st.just(Decimal("150.00"))),
    ("whole", Decimal, decimals(30, 0)),
    ("fine", Decimal, decimals(40, 6)),
    ("finer", Plain, decimals(40, 20)),
    ("finest", Plain, decimals(60, 40)),
    ("doubled", Decimal | None, st.none()),
    ("uuid", uuid.UUID | None, optional(st.uuids())),
    ("address", str | None, optional(ADDRESSES)),
    ("address", ipaddress.IPv4Address | None, optional(st.ip_addresses(v=4).map(str))),
    ("date", datetime.date | None, optional(st.dates())),
    ("moment", datetime.datetime | None, optional(fractions(MOMENTS))),
    ("moment", Timestamp | None, optional(fractions(MOMENTS))),
    ("time", datetime.time | None, optional(fractions(st.times()))),
]
PARSED: list[tuple[str, Any, Any]] = [
    ("price", Annotated[float, Field(ge=100, examples=[150.0])], st.just(Decimal("150.00"))),
    ("float", float | None, optional(FLOATS)),
    ("price", float | None, optional(decimals(7, 2))),
    ("price", Annotated[float, Field(ge=1, le=5)], st.sampled_from([Decimal("1.50"), Decimal(4)])),
    ("price", AsFloat | None, optional(decimals(7, 2))),
    ("document", Any, JSON),
    ("document", dict[str, Any] | None, optional(st.dictionaries(ANY_TEXT, JSON, max_size=3))),
]


def schema_of(**fields: Any) -> type[Schema]:
    definitions: Any = {name: of if isinstance(of, tuple) else (of, ...) for name, of in fields.items()}
    return create_model("Out", __base__=Schema, **definitions)


def answered(one: BaseModel) -> str:
    """What an endpoint answers that returns it."""
    return OrjsonRenderer().render(HttpRequest(), one.model_dump(), response_status=200).decode()


def both(
    run: Run,
    schema: type[BaseModel],
    values: Mapping[str, Any],
    printed: Callable[[BaseModel], str] = BaseModel.model_dump_json,
) -> tuple[str, str]:
    """Store the values; what Postgres and what the schema print."""
    stored = Everything.objects.create(**values)
    row = Everything.objects.filter(pk=stored.pk)
    (written,) = run(One(row, schema).statement)
    assert written is not None
    return written.decode(), printed(schema.model_validate(row.get(), from_attributes=True))


def hypothetically(values: Any) -> Callable[[Callable[[Any], None]], Callable[[], None]]:
    """For each of the values, in one transaction."""
    health = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
    bounded = settings(max_examples=30, deadline=None, suppress_health_check=health, database=None)

    def decorate(test: Callable[[Any], None]) -> Callable[[], None]:
        run: Callable[[], None] = bounded(given(value=values)(test))
        return run

    return decorate


@pytest.mark.parametrize(("name", "annotation", "values"), EXACT)
def test_to_the_letter(run: Run, name: str, annotation: Any, values: Any) -> None:
    schema = schema_of(**{name: annotation})

    @hypothetically(values)
    def check(value: Any) -> None:
        written, printed = both(run, schema, {} if name == "doubled" else {name: value}, answered)
        assert written == printed

    check()


@pytest.mark.parametrize(("name", "annotation", "values"), PARSED)
def test_to_the_value(run: Run, name: str, annotation: Any, values: Any) -> None:
    schema = schema_of(**{name: annotation})

    @hypothetically(values)
    def check(value: Any) -> None:
        written, printed = both(run, schema, {name: value})
        assert orjson.loads(written) == orjson.loads(printed)

    check()


@pytest.mark.parametrize("year", [1, 1969, 2020, 9999])
def test_one_width(run: Run, year: int) -> None:
    """In each representation, with a fraction of any number of digits."""
    for fraction in ("000000", "500000", "370000", "123000", "000100", "000010", "000001", "999999"):
        moment = datetime.datetime(year, 12, 31, 23, 59, 13, int(fraction), tzinfo=datetime.UTC)
        expected = f'{{"moment":"{year:04}-12-31T23:59:13.{fraction}+00:00"}}'
        for annotation in (Timestamp, datetime.datetime):
            schema = schema_of(moment=annotation)
            assert both(run, schema, {"moment": moment}, answered) == (expected, expected)
        assert schema_of(moment=Timestamp).model_validate({"moment": moment}).model_dump_json() == expected
        schema, expected = schema_of(time=datetime.time), f'{{"time":"23:59:13.{fraction}"}}'
        assert both(run, schema, {"time": moment.time()}, answered) == (expected, expected)


def test_moments_are_in_utc_whatever_the_sessions_zone(run: Run) -> None:
    stored = Everything.objects.create(moment=datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC))
    query = One(Everything.objects.filter(pk=stored.pk), schema_of(moment=Timestamp))
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL TimeZone = 'Asia/Kolkata'")
    assert run(query.statement) == [b'{"moment":"2020-01-01T00:00:00.000000+00:00"}']


def test_generated(run: Run) -> None:
    """Computed by Postgres, NULL where an operand is."""
    schema = schema_of(doubled=Decimal | None)
    assert both(run, schema, {"price": Decimal("0.05")}) == ('{"doubled":"0.10"}',) * 2
    assert both(run, schema, {"price": None}) == ('{"doubled":null}',) * 2


class Parent(Schema):
    key: Annotated[str | None, Field(alias="label.key")] = None
    rank: Annotated[int | None, Field(alias="label.rank")] = None
    parent_id: Annotated[str | None, Field(alias="label.parent_id")] = None
    grandparent: Annotated[int | None, Field(alias="label.parent.rank")] = None
    label_id: str | None
    sticker_id: str | None


def test_through_nullable_relations(run: Run) -> None:
    root = Label.objects.create(key='a "root"', rank=1)
    leaf = Label.objects.create(key="leaf", rank=2, parent=root)
    sticker = Sticker.objects.create(key="sticky", rank=3)
    cases = {
        None: '{"key":null,"rank":null,"parent_id":null,"grandparent":null,"label_id":null,"sticker_id":null}',
        root: '{"key":"a \\"root\\"","rank":1,"parent_id":null,"grandparent":null,'
        '"label_id":"a \\"root\\"","sticker_id":null}',
        leaf: '{"key":"leaf","rank":2,"parent_id":"a \\"root\\"","grandparent":1,'
        '"label_id":"leaf","sticker_id":"sticky"}',
    }
    for label, expected in cases.items():
        stored = Everything.objects.create(label=label, sticker=sticker if label == leaf else None)
        row = Everything.objects.filter(pk=stored.pk)
        assert run(One(row, Parent).statement) == [expected.encode()]
        assert Parent.from_orm(row.get()).model_dump_json() == expected


def test_names_that_need_quotes(run: Run) -> None:
    row = Odd.objects.create()
    text = (str, Field(alias="quoted"))
    schema = schema_of(größe=int, user=str, **{'it\'s "50%s" \\ $1 {} :x': text})
    (written,) = run(One(Odd.objects.filter(pk=row.pk), schema).statement)
    assert written == schema.from_orm(row).model_dump_json().encode()


@pytest.mark.parametrize(
    ("name", "annotation", "message"),
    [
        ("binary", bytes, "Postgres cannot write a BinaryField as JSON"),
        ("file", str, "Postgres cannot write a FileField as JSON"),
        ("dates_range", Any, "Postgres cannot write a DateRangeField as JSON"),
        ("shouted", str, "Postgres cannot write a Shouted as JSON"),
        ("percent", Decimal, "Postgres cannot write a Percent as JSON"),
        ("finest", Decimal, 'it prints "1E-40", Postgres "0.0{39}1"'),
        ("finer", Decimal, 'for Decimal\\(\'1E-20\'\\) it prints "1E-20", Postgres "0.00000000000000000001"'),
        (
            "moment",
            Annotated[datetime.datetime, PlainSerializer(lambda value: value.isoformat())],
            'it prints "0099-01-01T00:00:00\\+00:00", Postgres "0099-01-01T00:00:00.000000\\+00:00"',
        ),
        ("duration", datetime.timedelta, "Postgres cannot write a DurationField as JSON"),
        ("texts", list[str], "Postgres cannot write a ArrayField as JSON"),
        pytest.param(
            *("address", IPvAnyAddress, "::ffff"),
            marks=pytest.mark.skipif(
                sys.version_info >= (3, 13), reason="prints mapped addresses as Postgres does"
            ),
        ),
        ("text", Annotated[str, Field(), PlainSerializer(str.upper)], "no JSON that Postgres can write"),
        ("text", Annotated[str, Field(exclude=True)], "it prints nothing"),
        ("moment", datetime.date, "no JSON that Postgres can write"),
        ("text", Annotated[str, StringConstraints(strip_whitespace=True)], "no JSON that Postgres can write"),
        (
            "char",
            Annotated[str, StringConstraints(to_upper=True, max_length=3)],
            "for 'aA ' it prints \"AA \"",
        ),
        (
            "char",
            Annotated[str, Field(max_length=1), AfterValidator(str.upper)],
            'for \'a\' it prints "A", Postgres "a"',
        ),
        ("char", Annotated[str, StringConstraints(to_lower=True, max_length=1)] | None, '"A"'),
        (
            "char",
            Annotated[str, StringConstraints(to_upper=True, min_length=90)],
            "char: its bounds exclude all",
        ),
        ("char", Annotated[str, Field(pattern="^x+$"), AfterValidator(str.upper)], "its bounds exclude all"),
        (
            "char",
            Annotated[str, Field(pattern="^x+$", examples=["xx", 7]), AfterValidator(str.upper)],
            "for 'xx' it prints \"XX\"",
        ),
        ("integer", Annotated[Decimal, Field(ge=50, le=60)] | None, "its bounds exclude all samples"),
        (
            "integer",
            Annotated[int, Field(ge=3, le=7), AfterValidator(float)],
            "no JSON that Postgres can write",
        ),
        ("price", Annotated[float, Field(ge=50, le=60)] | None, "its bounds exclude all samples"),
        ("text", int | None, "Out.text: its type takes no value of .*Everything.text"),
        ("char", bool, "its type takes no value of .*Everything.char"),
        ("moment", int, "its type takes no value"),
        (
            "small",
            str,
            "its type takes no value of .*Everything.small, such as 0: input should be a valid string",
        ),
        ("nothing", int, "Everything has no field nothing"),
        ("pk", int, "Everything has no field pk"),
        ("label", str, "Everything.label is a relation; name a field of it, or label_id"),
        ("labels", list[int], "Everything.labels is a relation; name a field of it"),
    ],
)
def test_refused(name: str, annotation: Any, message: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=message):
        One(Everything.objects.filter(pk=1), schema_of(**{name: annotation}))


@pytest.mark.parametrize(
    ("alias", "message"),
    [
        ("label.nothing", "Label has no field nothing"),
        ("nothing.key", "Everything has no field nothing"),
        ("label.parent", "Label.parent is a relation; name a field of it, or parent_id"),
        ("text.key", "only single related rows can be followed"),
        ("labels.key", "only single related rows can be followed"),
    ],
)
def test_refused_paths(alias: str, message: str) -> None:
    schema = schema_of(found=Annotated[str | None, Field(alias=alias)])
    with pytest.raises(ImproperlyConfigured, match=message):
        One(Everything.objects.filter(pk=1), schema)


def test_a_schema_that_changes_all_texts() -> None:
    class Loud(Schema):
        model_config = ConfigDict(str_to_upper=True)
        char: Annotated[str, Field(pattern="^x+$")]

    with pytest.raises(ImproperlyConfigured, match="its bounds exclude all"):
        One(Everything.objects.filter(pk=1), Loud)


def test_a_path_that_leads_nowhere_in_its_second_step() -> None:
    """The message has the path as the schema has it, from its own model."""
    schema = schema_of(found=Annotated[str | None, Field(alias="label.key.x")])
    with pytest.raises(ImproperlyConfigured, match=r"^Everything\.label__key__x: only single"):
        One(Everything.objects.filter(pk=1), schema)


@pytest.mark.parametrize(
    ("alias", "message"),
    [
        ("products.id", "Category.products__id: only single related rows can be followed"),
        ("products", "Category.products is a relation; name a field of it.$"),
    ],
)
def test_refused_reverse_paths(alias: str, message: str) -> None:
    schema = schema_of(found=Annotated[str | None, Field(alias=alias)])
    with pytest.raises(ImproperlyConfigured, match=message):
        One(Category.objects.filter(pk=1), schema)


def test_refused_where_the_schema_computes() -> None:
    class Resolved(Schema):
        text: str

        @staticmethod
        def resolve_text(row: Everything) -> str:
            return "computed"

    class Validated(Schema):
        text: str

        @field_validator("text")
        @classmethod
        def shout(cls, text: str) -> str:
            return text.upper()

    class Bounded(Validated):
        text: Annotated[str, Field(pattern="^x+$")]

    for schema in (Resolved, Validated):
        with pytest.raises(ImproperlyConfigured, match="Postgres can"):
            One(Everything.objects.filter(pk=1), schema)
    with pytest.raises(ImproperlyConfigured, match=r"Bounded\.text: its bounds exclude all samples"):
        One(Everything.objects.filter(pk=1), Bounded)


def test_the_key_of_a_decimal_that_is_shown_as_a_number_is_exact(run: Run) -> None:
    """A reader of the row, which makes a double of it, would lose digits."""
    stored = Everything.objects.create(finer=Decimal("12345678901234567890.000001"))
    layout = Layout(
        Everything, schema_of(id=int, finer=float), "rows", ("id", "finer"), ("finer", "id"), annotations={}
    )
    assert layout.named == ["finer"]
    sql, parameters = compile_queryset(Everything.objects.all(), layout.columns)
    texts = through_django.fetch(Statement(sql, parameters), ())
    row = [texts.get_value(0, at) or b"" for at in range(2)]
    assert layout.key_of(row) == ("12345678901234567890.00000100000000000000", str(stored.pk))


@pytest.mark.parametrize("is_inert", [True, False])
def test_an_annotation_is_no_formula_either(run: Run, is_inert: bool) -> None:  # noqa: FBT001
    Label.objects.create(key="=1+1", rank=1)
    annotations = {"title": Lower("key")}
    rows = Label.objects.annotate(**annotations)
    cell = Cell(Label, schema_of(title=str), "title", rows.query.annotations, is_inert=is_inert)
    sql, parameters = compile_queryset(rows, [cell])
    expected = b"'=1+1" if is_inert else b"=1+1"
    assert through_django.fetch(Statement(sql, parameters), ()).get_value(0, 0) == expected
