"""Endpoints that tell by which scheme a request came, and some with security headers of their own."""

from collections.abc import AsyncIterator

from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse, StreamingHttpResponse
from django.urls import path

from api import cached
from tests.shop.urls import urlpatterns as shop

OWN = {"Referrer-Policy": "no-referrer", "Content-Security-Policy": "default-src 'self'"}


async def scheme(request: HttpRequest) -> HttpResponse:
    absolute = request.build_absolute_uri("/next")
    answer = JsonResponse(
        {"secure": request.is_secure(), "next": absolute}, headers={"Link": f"<{absolute}>"}
    )
    answer.set_cookie("seen", "1", secure=request.is_secure())
    return answer


async def moved(request: HttpRequest) -> HttpResponse:
    return HttpResponseRedirect(request.build_absolute_uri("/scheme"))


@cached("tests.links", fresh=3600, stale=60, depends_on=None, parameters=["page"])
async def links(request: HttpRequest) -> HttpResponse:
    """An absolute link, by the scheme of the request."""
    link = f"{request.scheme}://api.example.com/next"
    return JsonResponse({"next": link}, headers={"Link": f"<{link}>"})


async def own(request: HttpRequest) -> HttpResponse:
    return HttpResponse("own", headers=OWN)


@cached("tests.own", fresh=3600, stale=60, depends_on=None, parameters=[])
async def own_cached(request: HttpRequest) -> HttpResponse:
    return HttpResponse("own", headers=OWN)


async def stream(request: HttpRequest) -> StreamingHttpResponse:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"a"
        yield b"b"

    return StreamingHttpResponse(pieces(), headers=OWN if "own" in request.GET else None)


async def number(request: HttpRequest, number: int) -> HttpResponse:
    """Whose answer is it?"""
    return JsonResponse({"number": number})


async def failing(request: HttpRequest) -> HttpResponse:
    raise ValueError


urlpatterns = [
    *shop,
    path("scheme", scheme),
    path("moved", moved),
    path("links", links),
    path("number/<int:number>", number),
    path("own", own),
    path("own/cached", own_cached),
    path("stream", stream),
    path("failing", failing),
]
