"""Bad parameters: each is refused by its name, before it costs a statement."""

from collections.abc import Callable
from typing import Any

import pytest

LIST = "/api/products"
FILTERS = ["created_after", "created_before", "category"]
FILTERS += [f"{price}_{end}" for price in ("low_price", "high_price") for end in ("min", "max")]
TIMES, PRICES = FILTERS[:2], FILTERS[3:]
PARAMETERS = ["limit", "sort", *FILTERS, "fields", "layout", "cursor"]
Refused = Callable[..., Any]

BROKEN = ["", "%00", "1%00", "%FF", "%ED%A0%80", "%C0%80", "%F5%80%80%80", "1%80"]
STRANGE = [
    "%2B1",
    "+1",
    "1+",
    "%0A1",
    "1%0A",
    "1%C2%A0",
    "%D9%A1",
    "%EF%BC%91",
    "1%E2%80%8B",
    "1;2",
]
NUMBERS = ["NaN", "Infinity", "-Infinity", "1e3", "1E400", "--1", "1.", ".5", "true", "null", "[]", "1,2"]
HUGE = [str(2**31), str(2**63), "1" + "0" * 400, "-1" + "0" * 5000]


def fault(problem: Any, parameter: str) -> str:
    """The code of the only fault, which is this parameter's."""
    (only,) = problem["errors"]
    assert only["parameter"] == parameter
    assert only["detail"]
    assert parameter in problem["detail"]
    return str(only["code"])


@pytest.mark.parametrize("parameter", PARAMETERS)
def test_what_is_no_text(refused: Refused, parameter: str) -> None:
    codes = [fault(refused(422, f"{LIST}?{parameter}={value}"), parameter) for value in BROKEN]
    assert codes == ["empty", *["encoding"] * (len(BROKEN) - 1)]
    assert fault(refused(422, f"{LIST}?{parameter}"), parameter) == "empty"


@pytest.mark.parametrize("parameter", PARAMETERS)
def test_what_is_strange(refused: Refused, parameter: str) -> None:
    for value in STRANGE + ["1_0", "0x1"] * (parameter != "category"):
        fault(refused(422, f"{LIST}?{parameter}={value}"), parameter)


@pytest.mark.parametrize("parameter", [name for name in PARAMETERS if name != "category"])
def test_what_is_of_another_type(refused: Refused, parameter: str) -> None:
    for value in NUMBERS + HUGE:
        fault(refused(422, f"{LIST}?{parameter}={value}"), parameter)


def test_category_is_a_slug_of_50_characters(refused: Refused) -> None:
    for value in ("a" * 51, *HUGE[2:], "a.b", "a/b", "a%20b", "caf%C3%A9", "%27", "1.", "[]"):
        assert fault(refused(422, f"{LIST}?category={value}"), "category") == "malformed"


@pytest.mark.parametrize("value", ["0", "-1", "1001", *HUGE])
def test_limit_out_of_range(refused: Refused, value: str) -> None:
    assert fault(refused(422, f"{LIST}?limit={value}"), "limit") == "out_of_range"


@pytest.mark.parametrize("value", ["-0", "01", "1.0", "1e2", "+1", " 1", "ten"])
def test_limit_malformed(refused: Refused, value: str) -> None:
    assert fault(refused(422, f"{LIST}?limit={value.replace('+', '%2B')}"), "limit") == "malformed"


@pytest.mark.parametrize("parameter", PRICES)
def test_prices_out_of_range(refused: Refused, parameter: str) -> None:
    for value in ("100000", "-100000", "1.001", "0.0000000000001", *HUGE):
        assert fault(refused(422, f"{LIST}?{parameter}={value}"), parameter) == "out_of_range"


@pytest.mark.parametrize("parameter", TIMES)
@pytest.mark.parametrize(
    ("value", "code"),
    [
        ("2020-01-01", "malformed"),
        ("2020-01-01T00:00:00", "malformed"),
        ("2020-01-01 00:00:00Z", "malformed"),
        ("2020-01-01T00:00:00,5Z", "malformed"),
        ("2020-01-01T00:00:00.Z", "malformed"),
        ("2020-W01-1T00:00:00Z", "malformed"),
        ("infinity", "malformed"),
        ("10000-01-01T00:00:00Z", "malformed"),
        ("-2020-01-01T00:00:00Z", "malformed"),
        ("2020-02-30T00:00:00Z", "out_of_range"),
        ("2020-13-01T00:00:00Z", "out_of_range"),
        ("2020-01-01T25:00:00Z", "out_of_range"),
        ("2020-01-01T00:00:60Z", "out_of_range"),
        ("2020-01-01T00:00:00%2B24:00", "out_of_range"),
        ("0000-01-01T00:00:00Z", "out_of_range"),
        ("0001-01-01T00:00:00%2B01:00", "out_of_range"),
        ("9999-12-31T23:59:59-01:00", "out_of_range"),
    ],
)
def test_times(refused: Refused, parameter: str, value: str, code: str) -> None:
    assert fault(refused(422, f"{LIST}?{parameter}={value}"), parameter) == code


def test_an_unescaped_plus_in_a_time_is_explained(refused: Refused) -> None:
    problem = refused(422, f"{LIST}?created_after=2020-01-01T00:00:00+00:00")
    assert "%2B" in problem["detail"]


@pytest.mark.parametrize(
    "value", ["id,", ",id", "id,%20low_price", "ID", "*", "id,password", "category.slug"]
)
@pytest.mark.parametrize("url", [LIST, f"{LIST}/1"])
def test_fields(refused: Refused, url: str, value: str) -> None:
    assert fault(refused(422, f"{url}?fields={value}"), "fields") == "not_a_choice"


@pytest.mark.parametrize(
    ("parameter", "value"), [("limit", "1"), ("sort", "id"), ("fields", "id"), ("layout", "rows")]
)
def test_repeated(refused: Refused, parameter: str, value: str) -> None:
    pair = f"{parameter}={value}"
    assert fault(refused(422, f"{LIST}?{pair}&{pair}"), parameter) == "repeated"
    assert (
        fault(refused(422, f"{LIST}?{pair}&%{ord(parameter[0]):X}{parameter[1:]}={value}"), parameter)
        == "repeated"
    )


@pytest.mark.parametrize("url", [f"{LIST}?", f"{LIST}?limit=1&", f"{LIST}/1?", "/api/categories?"])
@pytest.mark.parametrize(
    "name", ["page", "offset", "Limit", "limit[]", "limit__gt", "id", "%E2%82%AC", "_", "%0A"]
)
def test_unknown(refused: Refused, url: str, name: str) -> None:
    (only,) = refused(422, f"{url}{name}=1")["errors"]
    assert only["code"] == "unknown"


@pytest.mark.parametrize("name", ["%FF", "limit%00", "%ED%A0%80", "a" * 50 + "%FF"])
def test_names_that_are_no_text(refused: Refused, name: str) -> None:
    assert fault(refused(422, f"{LIST}?{name}=1"), name[:50]) == "encoding"


@pytest.mark.parametrize("parameter", ["limit", "sort", "cursor", "created_after", "layout"])
def test_a_detail_has_no_parameter_of_the_list(refused: Refused, parameter: str) -> None:
    assert fault(refused(422, f"{LIST}/1?{parameter}=1"), parameter) == "unknown"


@pytest.mark.parametrize("pair", ["a=1", "limit=1", "=", "%FF=%FF", "category=%00"])
def test_hundreds_of_parameters(refused: Refused, pair: str) -> None:
    problem = refused(422, f"{LIST}?{'&'.join([pair] * 600)}")
    assert len(problem["errors"]) == 10


def test_every_fault_is_named(refused: Refused) -> None:
    problem = refused(422, f"{LIST}?limit=0&sort=name&colour=red&layout=&category=%FF")
    assert [(e["parameter"], e["code"]) for e in problem["errors"]] == [
        ("limit", "out_of_range"),
        ("sort", "not_a_choice"),
        ("colour", "unknown"),
        ("layout", "empty"),
        ("category", "encoding"),
    ]


@pytest.mark.parametrize(
    "query",
    [
        "sort=id&category=garden",
        "sort=low_price&high_price_min=1",
        "sort=-time_created&low_price_max=1",
        "low_price_min=1&high_price_max=2",
        "category=garden&low_price_min=1",
    ],
)
def test_unsupported_combinations(refused: Refused, query: str) -> None:
    problem = refused(422, f"{LIST}?{query}")
    assert problem["code"] == "unsupported_combination"
    assert {e["parameter"] for e in problem["errors"]} == {pair.split("=")[0] for pair in query.split("&")}
    assert problem["supported"] == [
        {"sort": ["time_created", "-time_created"], "filters": FILTERS[:3]},
        {"sort": ["low_price", "-low_price"], "filters": FILTERS[3:5]},
        {"sort": ["high_price", "-high_price"], "filters": FILTERS[5:]},
        {"sort": ["id", "-id"], "filters": []},
    ]
