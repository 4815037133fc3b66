"""GET of products and categories: the shape of pages and details, and what each endpoint asks of Postgres."""

import re
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.wiretap import Wiretap

LIST = "/api/products"
DEFAULT = [
    *("id", "low_price", "high_price", "demand_qty", "offers_qty", "bought_qty", "sold_qty"),
    "time_created",
]
ALL = [*DEFAULT, "category"]


def get(api: httpx.Client, url: str) -> Any:
    response = api.get(url)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/json"
    return response.json()


def links(response: httpx.Response) -> dict[str, str]:
    return {rel: url for url, rel in re.findall(r'<([^>]*)>; rel="(\w+)"', response.headers.get("link", ""))}


@pytest.mark.parametrize(
    "url",
    [
        LIST,
        f"{LIST}?fields=id,category&sort=-high_price",
        f"{LIST}?category=garden&created_after=2020-01-01T00:00:00Z",
        f"{LIST}/1",
        f"{LIST}/99999999",
        "/api/categories",
    ],
)
def test_one_query_without_a_transaction(api: httpx.Client, wiretap: Wiretap, url: str) -> None:
    api.get(url)
    wiretap.clear()
    api.get(url)
    assert wiretap.executions == 1
    said = " ".join(wiretap.statements).upper()
    assert not re.search(r"\b(BEGIN|COMMIT|ROLLBACK|SAVEPOINT|SET|DEALLOCATE|DISCARD)\b", said)


def test_default_page(api: httpx.Client) -> None:
    page = get(api, LIST)
    assert list(page) == ["next", "previous", "results"]
    assert page["previous"] is None
    assert [list(row) for row in page["results"]] == [DEFAULT] * 100
    keys = [(row["time_created"], row["id"]) for row in page["results"]]
    assert keys == sorted(keys)
    assert len({time for time, _ in keys}) < len(keys)  # ties, or the second key would go untested


@pytest.mark.parametrize(
    ("values", "spelled"),
    [
        (
            {"low_price": "12.5", "high_price": "99999.99", "demand_qty": 2**31 - 1, "category": "garden"},
            (
                '"low_price":"12.50","high_price":"99999.99","demand_qty":2147483647,"offers_qty":0,'
                '"bought_qty":0,"sold_qty":0,"time_created":"2030-01-01T00:00:00.000000+00:00","category":"garden"'
            ),
        ),
        ({"low_price": "0"}, '"low_price":"0.00","high_price":"2.00"'),
        ({"low_price": "-99999.99"}, '"low_price":"-99999.99","high_price":"2.00"'),
        ({}, '"category":null'),
        ({"time_created": "2020-01-01 00:00:13.37Z"}, '"2020-01-01T00:00:13.370000+00:00"'),
        ({"time_created": "2020-01-01 01:00:13.100000+01"}, '"2020-01-01T00:00:13.100000+00:00"'),
        ({"time_created": "2020-01-01 00:00:00.000001Z"}, '"2020-01-01T00:00:00.000001+00:00"'),
        ({"time_created": "2020-02-29 10:20:30Z"}, '"2020-02-29T10:20:30.000000+00:00"'),
        ({"time_created": "0001-01-01 00:00:00Z"}, '"0001-01-01T00:00:00.000000+00:00"'),
        ({"time_created": "9999-12-31 23:59:59.999999Z"}, '"9999-12-31T23:59:59.999999+00:00"'),
    ],
)
def test_spelling(
    api: httpx.Client, insert: Callable[..., int], values: dict[str, Any], spelled: str
) -> None:
    product = insert(**values)
    detail = api.get(f"{LIST}/{product}").text
    assert detail.startswith(f'{{"id":{product},"low_price":')
    assert spelled in detail
    page = api.get(f"{LIST}?sort=-id&limit=1&fields={','.join(ALL)}").text
    assert page.endswith(f'"results":[{detail}]}}')


@pytest.mark.parametrize(("query", "count"), [("", 100), ("?limit=1", 1), ("?limit=1000", 1000)])
def test_limit(api: httpx.Client, query: str, count: int) -> None:
    assert len(get(api, LIST + query)["results"]) == count


@pytest.mark.parametrize(
    ("asked", "answered"),
    [
        ("id", ["id"]),
        ("id,id", ["id"]),
        ("category,id,category", ["id", "category"]),
        (",".join(ALL[::-1]), ALL),
    ],
)
def test_fields_come_in_the_order_of_the_schema(api: httpx.Client, asked: str, answered: list[str]) -> None:
    assert list(get(api, f"{LIST}?limit=1&fields={asked}")["results"][0]) == answered
    assert list(get(api, f"{LIST}/1?fields={asked}")) == answered


def test_detail_has_every_field(api: httpx.Client) -> None:
    assert list(get(api, f"{LIST}/1")) == ALL


@pytest.mark.parametrize(
    "query",
    ["limit=3", "limit=1000&fields=id,category&sort=-low_price", "category=none", "fields=time_created"],
)
def test_columns_are_the_rows_transposed(api: httpx.Client, query: str) -> None:
    rows, columns = get(api, f"{LIST}?{query}"), get(api, f"{LIST}?{query}&layout=columns")
    names = list(rows["results"][0]) if rows["results"] else DEFAULT
    assert list(columns["results"]) == names
    assert columns["results"] == {name: [row[name] for row in rows["results"]] for name in names}
    assert (columns["next"] is None) == (rows["next"] is None)


def test_links_agree_in_body_and_header(api: httpx.Client) -> None:
    url, seen = f"{LIST}?limit=1000&fields=id", []
    while url:
        response = api.get(url)
        page = response.json()
        present = {"next": page["next"], "prev": page["previous"]}
        assert links(response) == {rel: target for rel, target in present.items() if target}
        seen.append(sorted(links(response)))
        url = page["next"]
    assert seen == [["next"], *[["next", "prev"]] * (len(seen) - 2), ["prev"]]


@pytest.mark.parametrize(
    ("query", "carried"),
    [
        ("", ""),
        ("limit=100&layout=rows&sort=time_created", ""),
        (f"fields={','.join(DEFAULT[::-1])}", ""),
        ("limit=2", "limit=2"),
        (
            "layout=columns&fields=id&limit=2&sort=-time_created&category=garden",
            "category=garden&sort=-time_created&limit=2&fields=id&layout=columns",
        ),
        ("low_price_max=%34.5&limit=9", "low_price_max=4.50&sort=low_price&limit=9"),
        (
            "created_before=2020-01-02T01:00:00-01:00&fields=category,id",
            "created_before=2020-01-02T02:00:00%2B00:00&fields=id,category",
        ),
        (
            "created_after=2020-01-01t00:00:00.1234567z&fields=id,category,id",
            "created_after=2020-01-01T00:00:00.123456%2B00:00&fields=id,category",
        ),
    ],
)
def test_links_carry_the_parameters_in_one_spelling(api: httpx.Client, query: str, carried: str) -> None:
    url = f"{LIST}?{query}"
    for _ in range(2):
        url = get(api, url)["next"]
        assert re.fullmatch(re.escape(f"{LIST}?{carried}") + r"&?cursor=[A-Za-z0-9_-]+", url)


def prices(rows: list[dict[str, Any]], name: str) -> list[float]:
    return [float(row[name]) for row in rows]


@pytest.mark.parametrize("sort", ["low_price", "high_price"])
def test_a_filter_implies_the_sort_of_its_path(api: httpx.Client, sort: str) -> None:
    rows = get(api, f"{LIST}?{sort}_min=100.01&{sort}_max=200")["results"]
    assert prices(rows, sort) == sorted(prices(rows, sort))
    assert rows == get(api, f"{LIST}?{sort}_min=100.01&{sort}_max=200.00&sort={sort}")["results"]


def test_bounds(api: httpx.Client, insert: Callable[..., int]) -> None:
    for number, minute in enumerate(("00", "01", "02")):
        insert(
            number,
            time_created=f"2030-01-01 00:{minute}Z",
            low_price=90000 + number,
            high_price=90000 + number,
        )
    between = "created_after=2030-01-01T00:00:00Z&created_before=2030-01-01T00:02:00Z"
    found = {query: [row["id"] % 10 for row in get(api, f"{LIST}?{query}")["results"]] for query in (
        between, f"{between}&sort=-time_created", "low_price_min=90000&low_price_max=90001", "high_price_min=90001",
    )}  # fmt: skip
    assert list(found.values()) == [[0, 1], [1, 0], [0, 1], [1, 2]]


def test_category_filter(api: httpx.Client) -> None:
    rows = get(api, f"{LIST}?category=garden&fields=category,id&limit=1000")["results"]
    assert {row["category"] for row in rows} == {"garden"}
    assert len(rows) > 100


@pytest.mark.parametrize("query", ["category=none", "created_after=2029-01-01T00:00:00Z", "low_price_max=-1"])
def test_empty_page(api: httpx.Client, query: str) -> None:
    response = api.get(f"{LIST}?{query}")
    assert response.text == '{"next":null,"previous":null,"results":[]}'
    assert "link" not in response.headers


def test_missing_detail(api: httpx.Client) -> None:
    response = api.get(f"{LIST}/{2**63 - 1}")
    assert response.status_code == 404
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["code"] == "not_found"


def test_categories(api: httpx.Client) -> None:
    page = get(api, "/api/categories")
    slugs = [row["slug"] for row in page["results"]]
    assert [list(row) for row in page["results"]] == [["id", "slug", "name"]] * 20
    assert slugs == sorted(slugs)
    assert page["next"] is page["previous"] is None
    last = get(api, "/api/categories?sort=-slug&limit=1")
    assert [row["slug"] for row in last["results"]] == slugs[-1:]
    assert get(api, last["next"])["results"][0]["slug"] == slugs[-2]
