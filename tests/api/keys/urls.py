"""Endpoints that ask for a credential."""

import os
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.urls import path
from ninja import Router

from api import Api, Identity, rate_class, scope
from api.keys import lookup
from tests.shop.urls import urlpatterns as own

# A worker with a long memory notices a change by its message only.
lookup.TTL_SECONDS = float(os.environ.get("TTL_SECONDS", lookup.TTL_SECONDS))
lookup.REFRESH_SECONDS = lookup.TTL_SECONDS / 2
router = Router(auth=scope("orders:read"))


def told(request: HttpRequest) -> dict[str, Any]:
    identity: Identity = request.auth  # type: ignore[attr-defined]
    return {"name": identity.name, "scopes": sorted(identity.scopes)}


@router.get("/orders")
async def orders(request: HttpRequest) -> dict[str, Any]:
    """Private, as all of its router."""
    return told(request)


@router.get("/orders/public")
async def mistaken(request: HttpRequest) -> HttpResponse:
    return HttpResponse("{}", headers={"Cache-Control": "public, max-age=60"})


@router.get("/orders/kept")
async def kept(request: HttpRequest) -> HttpResponse:
    return HttpResponse("{}", headers={"Cache-Control": "private, max-age=60"})


@router.post("/orders", auth=scope("orders:read", "orders:write"))
async def order(request: HttpRequest) -> dict[str, Any]:
    return told(request)


@router.post("/orders/sync", auth=scope("orders:write"))
def order_sync(request: HttpRequest) -> dict[str, Any]:
    return told(request)


@router.get("/anyone", auth=scope())
async def anyone(request: HttpRequest) -> dict[str, Any]:
    return told(request)


@router.post("/fails", auth=scope())
async def fails(request: HttpRequest) -> dict[str, Any]:
    raise ValueError(request.META)  # the key is among them


@router.post("/open", auth=None)
async def open_to_all(request: HttpRequest) -> HttpResponse:
    return HttpResponse("{}")


@router.post("/bulk", auth=None)
@rate_class("bulk")
async def bulk(request: HttpRequest) -> HttpResponse:
    return HttpResponse("{}")


@router.get("/search", auth=None)
@rate_class("bulk")
async def search(request: HttpRequest) -> HttpResponse:
    return HttpResponse("{}")


async def authenticate_token(credential: str) -> Identity | None:
    """In place of API keys: a token is a name and its scopes."""
    name, _, scopes = credential.partition(":")
    return Identity(name, frozenset(scopes.split(","))) if scopes else None


api = Api(urls_namespace="keys")
api.add_router("", router)
urlpatterns = [*own, path("keys/", api.urls)]
handler400 = "api.problems.bad_request"
handler403 = "api.problems.forbidden"
handler404 = "api.problems.not_found"
handler500 = "api.problems.internal_error"
