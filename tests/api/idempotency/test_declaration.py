"""What @idempotent refuses at the start, what the document says of it, and where a key is not to be found."""

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Annotated, Any

import httpx
import psycopg
import pytest
from asgiref.sync import async_to_sync
from django.apps import apps
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest, HttpResponse
from django.test import Client
from django_redis import get_redis_connection  # type: ignore[import-untyped]
from ninja import File, Form, UploadedFile
from openapi_spec_validator import OpenAPIV31SpecValidator

from api import Api, idempotent, streamed_body
from api.idempotency.answers import Answer, Asked
from api.idempotency.models import IdempotencyKey
from api.idempotency.once import replay
from ops.asgi import problems
from ops.asgi.bodies import stream_of
from tests.api.idempotency.conftest import voucher
from tests.service import PATIENCE, Service
from tests.shop.models import Voucher

FIELD, REPLAYED = "Idempotency-Key", "idempotency-replayed"


def sync(request: HttpRequest) -> HttpResponse:
    return HttpResponse()


async def plain(request: HttpRequest) -> HttpResponse:
    return HttpResponse()


@streamed_body
async def reading(request: HttpRequest) -> HttpResponse:
    return HttpResponse(b"".join([piece async for piece in stream_of(request)]))


async def of_a_form(request: HttpRequest, name: Annotated[str, Form()]) -> HttpResponse:
    return HttpResponse(name)


async def of_a_file(request: HttpRequest, upload: Annotated[UploadedFile, File()]) -> HttpResponse:
    return HttpResponse(upload.name)


@pytest.mark.parametrize(
    ("view", "method", "said"),
    [
        (sync, "POST", "sync"),
        (plain, "GET", "no effect"),
        (reading, "POST", "reads its content itself"),
        (of_a_form, "POST", "a form"),
        (of_a_file, "POST", "a form"),
    ],
)
def test_what_cannot_run_once_stops_the_start(view: Callable[..., Any], method: str, said: str) -> None:
    api = Api(urls_namespace=f"once-{view.__name__}")
    api.api_operation([method], "/x")(idempotent(view))
    with pytest.raises(
        ImproperlyConfigured, match=rf"{__name__}\.{view.__name__} is @idempotent, and .*{said}"
    ):
        _ = api.urls


def test_without_its_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(apps.app_configs, "api_idempotency")
    api = Api(urls_namespace="once-without")
    api.post("/x")(idempotent(plain))
    with pytest.raises(ImproperlyConfigured, match="INSTALLED_APPS"):
        _ = api.urls


def test_the_document(workers: list[Service]) -> None:
    document = workers[0].client.get("/once/openapi.json").json()
    assert not list(OpenAPIV31SpecValidator(document).iter_errors())
    operations = {path: each["post"] for path, each in document["paths"].items()}
    for path, required in (("/once/outcomes", False), ("/once/required", True)):
        [parameter] = [each for each in operations[path]["parameters"] if each["name"] == FIELD]
        assert (parameter["in"], parameter["required"]) == ("header", required)
        assert {"400", "409", "422"} <= operations[path]["responses"].keys()
        assert "Retry-After" in operations[path]["responses"]["409"]["headers"]
    assert operations["/once/unsupported"]["parameters"] == []
    shop = workers[0].client.get("/api/openapi.json").json()
    create = shop["paths"]["/api/vouchers"]["post"]["responses"]
    assert {"Location", "ETag", "Idempotency-Replayed"} == create["201"]["headers"].keys()
    assert create["409"]["description"].startswith("Another row has this value")
    assert create["422"]["description"].endswith("The Idempotency-Key belongs to another request.")


@pytest.mark.django_db
def test_in_the_transaction_of_a_test(client: Client) -> None:
    """On Django's own connection, as all that tests send."""
    content, own = voucher(), {"headers": {FIELD: "mine"}, "content_type": "application/json"}
    first, again = (client.post("/api/vouchers", content, **own) for _ in range(2))  # type: ignore[arg-type]
    assert (first.status_code, again.status_code) == (201, 201), first.content
    assert (again.content, again[REPLAYED]) == (first.content, "true")
    assert Voucher.objects.filter(code=content["code"]).count() == IdempotencyKey.objects.count() == 1
    assert client.post("/api/vouchers", voucher(), **own).status_code == 422  # type: ignore[arg-type]
    own["headers"] = {FIELD: "other"}
    refused, again = (client.post("/api/vouchers", content, **own) for _ in range(2))  # type: ignore[arg-type]
    assert (refused.status_code, again.content, again[REPLAYED]) == (409, refused.content, "true")
    assert Voucher.objects.filter(code=content["code"]).count() == 1


def test_a_key_appears_nowhere(
    workers: list[Service], key: str, rows: "psycopg.Connection[Any]", metrics_port: int
) -> None:
    """In the log at its most talkative, metrics, answers, Redis, the database."""
    secret, seen = f"hidden-{key}", ""
    for outcome in ("", "error", "422", "503"):
        for name in (f"{secret}{outcome}", f'"{secret}{outcome}'):
            for content in (voucher(), voucher()):
                headers = {FIELD: name, "outcome": outcome}
                answer = workers[0].client.post("/once/outcomes", json=content, headers=headers)
                seen += f"{answer.status_code} {answer.headers} {answer.text}"
    assert "idempotency_key_invalid" in seen
    assert "idempotency_key_reused" in seen
    dump = str(
        rows.execute("SELECT k::text, convert_from(body, 'UTF8') FROM api_idempotency_key k").fetchall()
    )
    dump += str(rows.execute("SELECT query FROM pg_stat_activity").fetchall())
    redis = get_redis_connection("default")
    stored = b""
    for name in redis.keys("*"):
        with suppress(Exception):  # another type than a string
            stored += name + redis.get(name)
    metrics, give_up = "", time.monotonic() + PATIENCE
    while (
        "problems_total" not in metrics
    ):  # the exporter starts, and each worker writes its own once a second
        assert time.monotonic() < give_up
        with suppress(httpx.ConnectError):
            metrics = httpx.get(f"http://127.0.0.1:{metrics_port}/metrics").text
    logs = "".join(worker.log.read_text() for worker in workers)
    assert "ValueError" in logs
    assert "once-" in dump
    for place in (logs, metrics, seen, stored.decode("latin-1"), dump):
        assert secret not in place


def test_a_refusal_that_comes_again_is_counted_again() -> None:
    codes = problems.PROBLEMS.labels("conflict")
    before = codes.value
    body = problems.encode(409, "conflict", "It is there.")
    kept = Answer(b"r", 409, [("Content-Type", problems.CONTENT_TYPE)], body, {})
    again = async_to_sync(replay)(kept, Asked(b"d", b"r"))
    assert (again.status_code, again.content, codes.value) == (409, body, before + 1)
    for own in (b"", b"[]", b'{"status":409}'):  # of a view, which may write anything
        assert async_to_sync(replay)(kept._replace(body=own), Asked(b"d", b"r")).content == own
    assert codes.value == before + 1
