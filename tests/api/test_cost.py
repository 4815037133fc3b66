"""What a read costs, counted: no thread and no task in the worker, one round trip to Postgres."""

from pathlib import Path

import httpx
import pytest

from ops.asgi.handler import LeanASGIHandler
from ops.asgi.hosts import AllowedHosts
from ops.asgi.lifespan import Lifespan
from ops.asgi.probes import Probes
from ops.asgi.telemetry import Telemetry
from ops.postgres.pool import open_pool
from ops.telemetry.health import Health
from tests import service as processes
from tests.ops.asgi.server import serve
from tests.wiretap import Wiretap

pytestmark = pytest.mark.lean

READS = [
    *("/api/products", "/api/products?sort=-low_price&low_price_max=100&fields=id,category&layout=columns"),
    *("/api/products/1", "/api/products/1?fields=id", "/api/products/99999999", "/api/categories"),
]


@pytest.mark.parametrize("url", READS)
def test_one_prepared_statement_in_one_round_trip(api: httpx.Client, wiretap: Wiretap, url: str) -> None:
    # More than once, since a busy machine may hold a statement up: the next one then has another connection.
    for _ in range(4):
        api.get(url)
        wiretap.clear()
        api.get(url)
        if "P" not in (kinds := [message.kind for message in wiretap.messages]):
            break
    # Bind, Describe, Execute, Sync: no Parse, no Query, so neither BEGIN nor SET nor a health check.
    assert kinds == ["B", "D", "E", "S"]


@pytest.mark.parametrize("url", ["/api/products", "/api/products?sort=-low_price", "/api/categories"])
def test_a_workers_first_page_is_prepared(wiretap: Wiretap, tmp_path: Path, url: str) -> None:
    """The lifespan has done it: compiled, and parsed by Postgres."""
    with processes.serve({"DATABASE_URL": wiretap.url}, tmp_path) as service:
        service.client.get("/livez")
        service.wait_for(b"connections at worst")  # the last statement that it makes of its own accord
        wiretap.clear()
        assert service.client.get(url).status_code == 200
        assert [message.kind for message in wiretap.messages] == ["B", "D", "E", "S"]


@pytest.mark.django_db
@pytest.mark.parametrize("url", READS)
def test_no_thread_and_no_task(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    application = Lifespan(Telemetry(Probes(AllowedHosts(LeanASGIHandler()), Health({}))), open_pool)
    with serve(application, monkeypatch, lifespan="on") as serving:
        serving.get(url)
        serving.tasks = serving.hops = 0
        assert serving.get(url).status_code in {200, 404}
        assert (serving.tasks, serving.hops) == (0, 0)
