"""Views as the checks want them, and as they do not."""

import asyncio
from functools import partial
from typing import Any

from django.contrib.staticfiles.views import serve
from django.http import HttpRequest, HttpResponse
from django.urls import include, path
from django.views import View
from ninja import NinjaAPI
from ninja.pagination import CursorPagination, PageNumberPagination, paginate

from api import Insert
from api.auth import scope
from tests.shop.models import Category
from tests.shop.schemas import CategoryOut

api = NinjaAPI(urls_namespace="checks")


@api.get("/mixed")
async def asynchronous(request: HttpRequest) -> dict[str, Any]:
    return {}


@api.post("/mixed")
def sync_beside_async(request: HttpRequest) -> dict[str, Any]:
    return {}


@api.api_operation(["GET", "PATCH", "DELETE"], "/written")
async def written(request: HttpRequest) -> dict[str, Any]:
    return {}


@api.post("/public", auth=None)
async def public(request: HttpRequest) -> dict[str, Any]:
    return {}


@api.post("/protected", auth=scope("written"))
async def protected(request: HttpRequest) -> dict[str, Any]:
    return {}


CREATE = Insert(Category, CategoryOut)


@api.post("/saving", auth=None)
async def saving(request: HttpRequest) -> dict[str, Any]:
    async for category in Category.objects.all():
        await category.asave()
    return {}


@api.put("/commanding", auth=None)
async def commanding(request: HttpRequest) -> dict[str, Any]:
    await asyncio.gather(*(CREATE(slug=slug, name=slug) for slug in "abc"))
    return {}


@api.patch("/once", auth=None)
async def once(request: HttpRequest) -> dict[str, Any]:
    known: dict[str, Any] = {}
    for number in range(3):
        known.update({f"{number}": number})
    await CREATE(slug="a", name="a")
    await Category(slug="b").asave()
    return known


@api.get("/reading")
async def reading(request: HttpRequest) -> list[Any]:
    return [await Category.objects.aget_or_create(slug=slug) for slug in "abc"]


@api.get("/pages", response=list[int])
@paginate(PageNumberPagination)
async def pages(request: HttpRequest) -> list[int]:
    return []


@api.get("/limits", response=list[int])
@paginate
async def limits(request: HttpRequest) -> list[int]:
    return []


@api.get("/cursors", response=list[int])
@paginate(CursorPagination)
async def cursors(request: HttpRequest) -> list[int]:
    return []


class SyncView(View):
    def get(self, request: HttpRequest) -> HttpResponse:
        return HttpResponse()


class AsyncView(View):
    async def get(self, request: HttpRequest) -> HttpResponse:
        return HttpResponse()


def sync_function(request: HttpRequest, **_options: str) -> HttpResponse:
    return HttpResponse()


async def async_function(request: HttpRequest) -> HttpResponse:
    return HttpResponse()


plain = [
    path("function", partial(sync_function, option="1")),
    path("class", SyncView.as_view()),
    path("async-function", async_function),
    path("async-class", AsyncView.as_view()),
    path("static/<path>", serve),
]
urlpatterns = [path("ninja/", api.urls), path("plain/", include((plain, "plain")))]
