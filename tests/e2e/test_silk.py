"""Silk: a request, its SQL and its profile in Silk's own pages, and no secret of it anywhere."""

import re
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests import spare
from tests.e2e.conftest import text

SECRETS = {
    "Authorization": "Bearer hush-1",
    "X-API-Key": "hush-2",
    "Cookie": "session=hush-3",
    "Proxy-Authorization": "Basic hush-4",
}


@pytest.fixture
def empty(silk: httpx.Client, database: spare.Database) -> None:
    """Nothing is recorded yet."""
    with database.connect() as connection:
        connection.execute("TRUNCATE silk_request CASCADE")


def recorded(silk: httpx.Client) -> list[str]:
    """The pages of the recorded requests, the last one first."""
    pages = re.findall(r"/silk/request/[0-9a-f-]{36}/", silk.get("/silk/requests/").text)
    return list(dict.fromkeys(pages))


def sql(silk: httpx.Client, page: str) -> list[str]:
    """What a request asked of Postgres."""
    rows = re.findall(rf"{page}sql/\d+/", silk.get(f"{page}sql/").text)
    return [text(silk.get(row).text.replace("&nbsp;", " ")) for row in dict.fromkeys(rows)]


@pytest.mark.usefixtures("empty")
def test_a_request_and_its_sql(silk: httpx.Client) -> None:
    answer = silk.get("/api/products?category=garden&limit=2")
    (page,) = recorded(silk)
    shown = text(silk.get(page).text)
    assert "200 GET /api/products" in shown
    assert '"category": "garden"' in shown
    assert str(answer.json()["results"][1]["id"]) in shown
    (statement,) = sql(silk, page)
    assert 'FROM "shop_product"' in statement
    assert re.search(r"U0\.\"slug\" = \(garden\)", statement)
    assert "LIMIT 3" in statement
    assert "Index Scan using shop_category_time" in statement  # the plan, on the same page


@pytest.mark.usefixtures("empty")
def test_every_page_opens_and_all_can_be_cleared(silk: httpx.Client) -> None:
    silk.get("/api/products/7")
    seen, found = set[str](), {"/silk/", *recorded(silk)}
    while found - seen:
        path = (found - seen).pop()
        seen.add(path)
        page = silk.get(path)
        assert page.status_code == 200, path
        found |= set(re.findall(r"[\"'](/silk/[^\"'?#]*)", page.text))
    assert len(seen) > 8
    assert silk.post("/silk/cleardb/", data={"clear_all": "on"}).status_code == 200
    assert recorded(silk) == []


@pytest.mark.usefixtures("empty")
def test_the_profile_has_the_view(silk: httpx.Client) -> None:
    silk.get("/api/products")
    (page,) = recorded(silk)
    assert re.search(r"tests/shop/api\.py:\d+\(list_products\)", text(silk.get(f"{page}cprofile/").text))


@pytest.mark.usefixtures("empty")
def test_requests_at_once_keep_apart(silk: httpx.Client) -> None:
    with ThreadPoolExecutor(8) as threads:
        answers = threads.map(lambda limit: silk.get(f"/api/products?limit={limit}"), range(1, 17))
        assert {answer.status_code for answer in answers} == {200}
    pages = recorded(silk)
    assert len(pages) == 16
    for page in pages:
        shown = re.search(r'"limit": "(\d+)"', text(silk.get(page).text))
        assert shown
        (statement,) = sql(silk, page)
        assert f"LIMIT {int(shown[1]) + 1})" in statement


@pytest.mark.usefixtures("empty")
def test_no_secret_is_recorded(silk: httpx.Client, database: spare.Database) -> None:
    silk.get("/api/products?limit=1", headers=SECRETS)
    with database.connect() as connection:
        rows = connection.execute(
            "SELECT silk_request::text || silk_response::text FROM silk_request "
            "JOIN silk_response ON request_id = silk_request.id"
        ).fetchall()
    ((row,),) = rows
    assert "hush" not in row
    assert "x-api-key" in row


@pytest.mark.usefixtures("empty")
def test_what_is_large_is_not_kept(silk: httpx.Client, database: spare.Database) -> None:
    assert len(silk.get("/api/products?limit=1000").content) > 100_000
    with database.connect() as connection:
        rows = connection.execute("SELECT raw_body, body FROM silk_response").fetchall()
    assert rows == [("", "")]


@pytest.mark.usefixtures("empty")
def test_only_the_api_is_recorded(silk: httpx.Client) -> None:
    page = silk.get("/silk/")
    assert page.status_code == 200
    files = re.findall(r'(?:href|src)="(/static/[^"]+)"', page.text)
    assert files
    for path in (*files, "/api/docs", "/api/docs/swagger-ui.css", "/api/openapi.json", "/nowhere"):
        silk.get(path)
    assert silk.get(files[0]).headers["content-type"] == "text/css"
    assert recorded(silk) == []
