"""RUNTIME=stock: the same answers by the libraries' own parts."""

import os
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from django.db import connection

from tests.ops.telemetry.conftest import eventually
from tests.service import serve

URLS = ["/api/products?limit=3", "/api/products/1", "/api/products?limit=0", "/nothing", "/livez"]


def is_hit(client: httpx.Client) -> bool:
    return "hit" in client.get(URLS[0]).headers["cache-status"]


@pytest.mark.parametrize("cache", ["off", "on"])
def test_both_answer_the_same(django_db_setup: None, tmp_path: Path, cache: str) -> None:
    answers = {}
    database = urlsplit(os.environ["DATABASE_URL"])._replace(path=f"/{connection.settings_dict['NAME']}")
    for runtime in ("lean", "stock"):
        directory = tmp_path / runtime
        directory.mkdir()
        environment = {
            "RUNTIME": runtime,
            "PAGE_CACHE": cache,
            "CACHE_PREFIX": f"test-{runtime}",
            "DATABASE_URL": database.geturl(),
        }
        with serve(environment, directory) as service:
            client = service.client
            first = [client.get(url) for url in URLS]
            if cache == "on":
                eventually(partial(is_hit, client))
            both = [*first, *(client.get(url) for url in URLS)]
            answers[runtime] = [(one.status_code, one.headers.get("etag"), one.content) for one in both]
            service.wait_for(f"RUNTIME={runtime}".encode())
    assert answers["stock"] == answers["lean"]
