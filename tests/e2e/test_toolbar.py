"""The debug toolbar: a page that carries it shows the API's requests, with their SQL."""

import re
import sys

import httpx
import pytest

from tests.e2e.conftest import text


def panel(toolbar: httpx.Client, name: str, request_id: str) -> str:
    shown = toolbar.get("/__debug__/render_panel/", params={"panel_id": name, "request_id": request_id})
    return text(shown.json()["content"])


def test_history_lists_a_request_of_the_api_with_its_sql(toolbar: httpx.Client) -> None:
    answer = toolbar.get("/api/products?category=garden&limit=2")
    asked = answer.headers["djdt-request-id"]
    page = re.search(r'data-request-id="(\w+)"', toolbar.get("/api/docs").text)
    assert page
    assert "GET /api/products?category=garden&limit=2" in panel(toolbar, "HistoryPanel", page[1])
    shown = panel(toolbar, "SQLPanel", asked)
    assert 'FROM "shop_product"' in shown
    assert "U0.\"slug\" = ('garden')" in shown
    assert "LIMIT 3" in shown
    assert "1 query" in shown


def test_everything_that_the_toolbar_loads_is_there(toolbar: httpx.Client) -> None:
    files = re.findall(r'(?:href|src)="(/static/debug_toolbar/[^"]+)"', toolbar.get("/api/docs").text)
    assert {path.rpartition(".")[2] for path in files} >= {"css", "js", "svg"}
    assert {toolbar.get(path).status_code for path in files} == {200}


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere 127.0.0.2 is not this machine")
def test_others_do_not_see_it(toolbar: httpx.Client) -> None:
    with httpx.Client(
        base_url=toolbar.base_url, transport=httpx.HTTPTransport(local_address="127.0.0.2")
    ) as other:
        answer = other.get("/api/docs")
        assert "djDebug" not in answer.text
        assert "djdt-request-id" not in answer.headers
        assert other.get("/__debug__/history_refresh/").status_code == 404
