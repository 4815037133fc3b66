"""What the instruments of development change: nothing in the answers, and nothing at all where they are off."""

import httpx
import pytest

READS = [
    *(
        "/api/products",
        "/api/products?limit=1000",
        "/api/products?category=garden&limit=7&fields=id,category",
    ),
    "/api/products?sort=-low_price&low_price_max=100.50&layout=columns",
    "/api/products?created_after=2020-01-01T02:00:00%2B01:00&created_before=2020-01-01T05:00:00Z&limit=3",
    *("/api/products?low_price_min=1000", "/api/categories?sort=-slug&limit=2"),
    *("/api/products/7", "/api/products/7?fields=id", "/api/products/99999999", "/api/products?limit=0"),
    "/api/openapi.json",
]


@pytest.mark.parametrize("instrument", ["silk", "toolbar"])
@pytest.mark.parametrize("url", READS)
def test_answers_are_the_same(
    plain: httpx.Client, request: pytest.FixtureRequest, instrument: str, url: str
) -> None:
    instrumented = request.getfixturevalue(instrument)
    for _ in range(3):  # the page, the next one and the one after that
        expected, answer = plain.get(url), instrumented.get(url)
        assert (answer.status_code, answer.content) == (expected.status_code, expected.content)
        for name in ("content-type", "content-length", "link"):
            assert answer.headers.get(name) == expected.headers.get(name)
        url = expected.links.get("next", {}).get("url", url)


@pytest.mark.parametrize(
    "path", ["/silk/", "/silk/requests/", "/__debug__/render_panel/", "/static/silk/css/x"]
)
def test_off_means_not_there(plain: httpx.Client, path: str) -> None:
    assert plain.get(path).json()["code"] == "not_found"


def test_off_leaves_no_trace(plain: httpx.Client) -> None:
    answer = plain.get("/api/docs")
    assert "djdt-request-id" not in answer.headers
    assert "djDebug" not in answer.text
