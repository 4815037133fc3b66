"""Views as the checks want them, and as they do not."""

from functools import partial
from typing import Any

from django.contrib.staticfiles.views import serve
from django.http import HttpRequest, HttpResponse
from django.urls import include, path
from django.views import View
from ninja import NinjaAPI
from ninja.pagination import CursorPagination, PageNumberPagination, paginate

api = NinjaAPI(urls_namespace="checks")


@api.get("/mixed")
async def asynchronous(request: HttpRequest) -> dict[str, Any]:
    return {}


@api.post("/mixed")
def sync_beside_async(request: HttpRequest) -> dict[str, Any]:
    return {}


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
