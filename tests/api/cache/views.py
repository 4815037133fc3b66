"""Endpoints of every kind that a cache must tell apart, and one for each thing that it must not store."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from http import HTTPStatus
from typing import Any

from django.db import transaction
from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.urls import path

from api.cache.changes import ainvalidate
from api.cache.policy import POLICIES, Dependency, Endpoint, cached
from api.cache.rendering import MAX_BODY_BYTES
from api.problems import Problem
from api.reads import parameters
from api.reads.parameters import integer, text
from tests.shop.models import Category, Product

View = Callable[..., Awaitable[Any]]
calls: Counter[str] = Counter()
TYPES = {"n": integer(0, 9, default=0), "t": text(20)}
DATE = "Wed, 01 Jan 2020 00:00:00 GMT"
PROSE = b'{"some": "words"}' * 100


def reset() -> None:
    calls.clear()
    for policy in POLICIES.values():
        policy.counts.clear()


class Strict(Endpoint):
    """Refuses unknown parameters, as a listing does."""

    def canonical_query(self, query_string: str) -> str:
        values = parameters.read(query_string, TYPES)
        return "&".join(f"{name}={values[name]}" for name in TYPES if name in values)


def page(view: View) -> View:
    """Cached, under its name; its calls are counted."""

    async def counted(request: HttpRequest, **arguments: Any) -> Any:
        calls[view.__name__] += 1
        return await view(request, **arguments)

    counted.__name__ = view.__name__
    resource = Strict(f"tests.{view.__name__}", [Dependency(Product), Dependency(Category)], tuple(TYPES))
    return cached(resource, fresh=10, stale=60)(counted)


@page
async def state(request: HttpRequest) -> HttpResponse:
    """All that a view can see of a request."""
    values = parameters.read(request.META["QUERY_STRING"], TYPES)
    meta = {name: value for name, value in request.META.items() if isinstance(value, str)}
    return JsonResponse({"values": values, "meta": meta, "path": request.path}, safe=False)


@page
async def large(request: HttpRequest) -> HttpResponse:
    return HttpResponse(PROSE, content_type="application/json")


@page
async def small(request: HttpRequest) -> HttpResponse:
    return HttpResponse(PROSE[:100], content_type="application/json")


@page
async def binary(request: HttpRequest) -> HttpResponse:
    return HttpResponse(PROSE, content_type="image/png")


@page
async def dated(request: HttpRequest) -> HttpResponse:
    return HttpResponse(PROSE, headers={"Last-Modified": DATE, "Content-Language": "en"})


@page
async def numbered(request: HttpRequest, number: int) -> HttpResponse:
    return HttpResponse(b"%d" % number)


@page
async def status(request: HttpRequest, number: int) -> HttpResponse:
    return HttpResponse(b"x" * (0 if number == HTTPStatus.NO_CONTENT else 5), status=number)


@page
async def cookie(request: HttpRequest) -> HttpResponse:
    response = HttpResponse(b"for you")
    response.set_cookie("a", "b")
    return response


@page
async def private(request: HttpRequest) -> HttpResponse:
    return HttpResponse(headers={"Cache-Control": "max-age=5, Private"})


@page
async def no_store(request: HttpRequest) -> HttpResponse:
    return HttpResponse(headers={"Cache-Control": "no-store"})


@page
async def varied(request: HttpRequest) -> HttpResponse:
    return HttpResponse(request.headers.get("Origin", ""), headers={"Vary": "Origin"})


@page
async def coded(request: HttpRequest) -> HttpResponse:
    return HttpResponse(b"coded", headers={"Content-Encoding": "x-own"})


@page
async def streamed(request: HttpRequest) -> StreamingHttpResponse:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"a"
        await asyncio.sleep(0)
        yield b"b"

    return StreamingHttpResponse(pieces())


@page
async def huge(request: HttpRequest) -> HttpResponse:
    return HttpResponse(b"x" * (MAX_BODY_BYTES + 1))


@page
async def refused(request: HttpRequest) -> HttpResponse:
    return Problem(409, "Not now.").response()


@page
async def failing(request: HttpRequest) -> HttpResponse:
    raise ValueError("a message")


async def undecorated(request: HttpRequest) -> HttpResponse:
    calls["undecorated"] += 1
    return HttpResponse(PROSE)


@page
async def guarded(request: HttpRequest, number: int) -> HttpResponse:
    """As behind a middleware that identifies the client."""
    return HttpResponse(b"for you") if "X-Token" in request.headers else HttpResponse(status=number)


NUMBERED: list[Any] = [numbered, status, guarded]


def write(request: HttpRequest) -> HttpResponse:
    """In a thread, as sync views are."""
    with transaction.atomic():
        made = Category.objects.create(slug=f"test-{request.GET['slug']}")
        made.name = "other"
        made.save()
    return HttpResponse()


async def write_async(request: HttpRequest) -> HttpResponse:
    await Category.objects.acreate(slug=f"test-{request.GET['slug']}")
    return HttpResponse()


async def announce(request: HttpRequest) -> HttpResponse:
    await ainvalidate(Category)
    return HttpResponse()


PAGES: list[Any] = [state, large, small, binary, dated, cookie, private, no_store, varied, coded, streamed]
PAGES += [huge, refused, failing, undecorated, write, write_async, announce]
urlpatterns: list[Any] = [path(view.__name__, view) for view in PAGES]
urlpatterns += [path(f"{view.__name__}/<int:number>", view) for view in NUMBERED]
handler500 = "api.problems.internal_error"
