"""/api/docs: a page that needs nothing from any other host."""

import re
from urllib.parse import urljoin

import httpx
import pytest

PAGE = "/api/docs"


def test_page_names_no_foreign_host(api: httpx.Client) -> None:
    page = api.get(PAGE)
    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert not re.search(r"https?:|[\"'(]//", page.text)
    assert '"/api/openapi.json"' in page.text


def test_everything_that_the_page_loads_is_there(api: httpx.Client) -> None:
    names = re.findall(r'(?:src|href)="([^"]+)"', api.get(PAGE).text)
    assert len(names) == 4
    for name in names:
        asset = api.get(urljoin(PAGE, name))
        assert (asset.status_code, asset.headers["cache-control"]) == (200, "public, max-age=86400")
        assert len(asset.content) > 100


@pytest.mark.parametrize(
    ("name", "content_type"),
    [
        ("swagger-ui.css", "text/css"),
        ("swagger-ui-bundle.js", "text/javascript"),
        ("swagger-ui-init.js", "text/javascript"),
        ("favicon.svg", "image/svg+xml"),
    ],
)
def test_assets_say_what_they_are(api: httpx.Client, name: str, content_type: str) -> None:
    assert api.get(f"{PAGE}/{name}").headers["content-type"].split(";")[0] == content_type


def test_the_initial_script_loads_nothing_from_elsewhere(api: httpx.Client) -> None:
    assert "://" not in api.get(f"{PAGE}/swagger-ui-init.js").text


@pytest.mark.parametrize("name", ["nope.js", "..%2F..%2Fapps.py", "swagger-ui.css%00", "redoc.standalone.js"])
def test_no_other_file_is_served(api: httpx.Client, name: str) -> None:
    missing = api.get(f"{PAGE}/{name}")
    assert (missing.status_code, missing.headers["content-type"]) == (404, "application/problem+json")
