"""What a read costs, counted: no thread and no task in the worker, one round trip to Postgres."""

import httpx
import pytest

from ops.asgi.handler import LeanASGIHandler
from ops.asgi.hosts import AllowedHosts
from ops.asgi.lifespan import Lifespan
from ops.asgi.probes import Probes
from ops.asgi.telemetry import Telemetry
from ops.postgres.pool import open_pool
from tests.ops.asgi.server import serve
from tests.wiretap import Wiretap

READS = [
    *("/api/products", "/api/products?sort=-low_price&low_price_max=100&fields=id,category&layout=columns"),
    *("/api/products/1", "/api/products/1?fields=id", "/api/products/99999999", "/api/categories"),
]


@pytest.mark.parametrize("url", READS)
def test_one_prepared_statement_in_one_round_trip(api: httpx.Client, wiretap: Wiretap, url: str) -> None:
    api.get(url)
    wiretap.clear()
    api.get(url)
    # Bind, Describe, Execute, Sync: no Parse, no Query, so neither BEGIN nor SET nor a health check.
    assert [message.kind for message in wiretap.messages] == ["B", "D", "E", "S"]


@pytest.mark.django_db
@pytest.mark.parametrize("url", READS)
def test_no_thread_and_no_task(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    application = Lifespan(Telemetry(Probes(AllowedHosts(LeanASGIHandler()))), open_pool)
    with serve(application, monkeypatch, lifespan="on") as serving:
        serving.get(url)
        serving.tasks = serving.hops = 0
        assert serving.get(url).status_code in {200, 404}
        assert (serving.tasks, serving.hops) == (0, 0)
