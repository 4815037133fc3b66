"""Endpoints that take an Idempotency-Key. The header field `outcome` is no part of a request's digest."""

import asyncio
from typing import Any

from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.urls import path
from ninja import Router, Status

from api import Api, Identity, Problem, idempotent, scope, transaction
from api.writes.resource import no_content
from tests.shop.commands import VOUCHER_WRITES
from tests.shop.urls import urlpatterns as own

router = Router(auth=None)
calls = 0  # of `plain`, in this worker


async def authenticate(credential: str) -> Identity:
    return Identity(credential)


@router.post("/mine", auth=scope())
@idempotent
async def create_mine(request: HttpRequest) -> HttpResponse:
    return await VOUCHER_WRITES.create(request)


@router.post("/foreign", auth=lambda request: "a name")
@idempotent
async def create_for_an_unknown_kind(request: HttpRequest) -> HttpResponse:
    return await VOUCHER_WRITES.create(request)


@router.post("/required")
@idempotent(required=True)
async def create_with_key(request: HttpRequest) -> HttpResponse:
    return await VOUCHER_WRITES.create(request)


@router.post("/unsupported")
async def create_each_time(request: HttpRequest) -> HttpResponse:
    return await VOUCHER_WRITES.create(request)


@router.post("/outcomes")
@idempotent
async def create_and_fail(request: HttpRequest) -> HttpResponse:
    """Creates a voucher, and then answers as `outcome` says."""
    async with transaction():
        response = await VOUCHER_WRITES.create(request)
    outcome = request.headers.get("outcome", "")
    if outcome == "error":
        raise ValueError(outcome)
    if outcome == "cookie":
        response.set_cookie("a", "b")
    if outcome == "stream":
        return StreamingHttpResponse(iter([b"{}"]))  # type: ignore[return-value]
    if outcome == "large":
        return HttpResponse(bytes(9 * 1024 * 1024))
    if outcome == "204":
        return no_content()
    if outcome.isdigit():
        raise Problem(int(outcome), "As you say.", headers={"X-Own": "mine"})
    return response


@router.post("/plain/{number}", response={202: dict[str, int]})
@idempotent
async def plain(request: HttpRequest, response: HttpResponse, number: int) -> Any:
    """As Ninja's own endpoints are."""
    global calls  # noqa: PLW0603
    calls += 1
    response["X-Calls"] = str(calls)
    return Status(202, {"number": number, "calls": calls})


@router.post("/waits")
@idempotent
async def create_late(request: HttpRequest) -> HttpResponse:
    """Knocks at the socket that `gate` names, and waits for its answer."""
    reader, writer = await asyncio.open_unix_connection(request.headers["gate"])
    await reader.read(1)
    writer.close()
    return await VOUCHER_WRITES.create(request)


api = Api(urls_namespace="once")
api.add_router("", router)
urlpatterns = [*own, path("once/", api.urls)]
handler400 = "api.problems.bad_request"
handler403 = "api.problems.forbidden"
handler404 = "api.problems.not_found"
handler500 = "api.problems.internal_error"
