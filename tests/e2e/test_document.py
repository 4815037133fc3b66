"""The OpenAPI document and the service agree: says a fuzzer, and so does a client generated from the document."""

import importlib
import json
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from django.conf import settings

from tests import spare
from tests.fuzzing import explore
from tests.service import Service, serve


@pytest.fixture
def own(django_db_setup: None, tmp_path: Path) -> Iterator[Service]:
    """The service with a shop of its own: a fuzzer that writes leaves nothing as it was."""
    with spare.create(f"{settings.DATABASES['default']['NAME']}_fuzzed") as database:
        for command in (("migrate",), ("seed_shop", "--rows", "1000")):
            done = database.manage(*command, "--verbosity=0")
            assert (done.returncode, done.stderr) == (0, "")
        with serve({"DATABASE_URL": database.url}, tmp_path) as running:
            yield running


def test_every_answer_is_as_the_document_says(own: Service) -> None:
    found = explore(f"{own.client.base_url}/api/openapi.json")
    assert not found.wrong, "\n\n".join(found.wrong)
    assert found.phases == {"examples", "coverage", "fuzzing", "stateful"}
    assert {"PATCH /api/vouchers/{voucher_id}", "POST /api/vouchers"} <= found.operations
    assert {f"{method} /api/vouchers/bulk" for method in ("POST", "PATCH", "DELETE")} <= found.operations
    assert {"GET /api/products", "GET /api/products/{product_id}", "GET /api/categories"} <= found.operations
    assert {
        "positive_data_acceptance",
        "negative_data_rejection",
        "response_schema_conformance",
    } <= found.checks
    assert found.requests > 200


@pytest.fixture(scope="module")
def package(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A client made of the document by openapi-python-client."""
    directory = tmp_path_factory.mktemp("generated")
    document, config = directory / "openapi.json", directory / "config.yaml"
    document.write_bytes(service.client.get("/api/openapi.json").content)
    # It knows no type of an import: a line is JSON to it, and CSV a file.
    taken_for = {"application/x-ndjson": "application/json", "application/jsonl": "application/json"}
    taken_for["text/csv"] = "application/octet-stream"
    config.write_text(json.dumps({"post_hooks": [], "content_type_overrides": taken_for}))
    program = Path(sysconfig.get_path("scripts")) / "openapi-python-client"
    arguments = ["--path", str(document), "--config", str(config), "--meta", "none", "--fail-on-warning"]
    command = [
        sys.executable,
        str(program),
        "generate",
        *arguments,
        "--output-path",
        str(directory / "generated_client"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return directory


def test_a_generated_client_walks_the_products(
    service: Service, package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(package)

    def generated(name: str) -> Any:
        return importlib.import_module(f"generated_client.{name}")

    models: Any = generated("models")
    endpoint: Any = generated("api.products.tests_shop_api_list_products")
    with generated("client").Client(str(service.client.base_url)) as client:
        pages = [endpoint.sync(client=client, limit=2)]
        while len(pages) < 3:
            cursor = parse_qs(urlsplit(pages[-1].next_).query)["cursor"][0]
            pages.append(endpoint.sync(client=client, limit=2, cursor=cursor))
        assert {type(page) for page in pages} == {models.ProductPage}
        products = [product for page in pages for product in page.results]
        expected = service.client.get("/api/products?limit=6").json()["results"]
        assert [product.id for product in products] == [row["id"] for row in expected]

        layout = endpoint.TestsShopApiListProductsLayout.COLUMNS
        columns = endpoint.sync(client=client, limit=6, layout=layout)
        assert type(columns) is models.ProductPageInColumns
        assert columns.results.id == [product.id for product in products]

        refused = endpoint.sync(client=client, limit=0)
        assert (refused.status, refused.errors[0].parameter) == (422, "limit")

        endpoint = generated("api.products.tests_shop_api_get_product")
        assert endpoint.sync(products[0].id, client=client).time_created == products[0].time_created
        absent = endpoint.sync_detailed(2**63 - 1, client=client)
        assert (absent.status_code, absent.parsed.code) == (404, "not_found")
