"""Views of every kind that Django knows, and the events by which tests follow them."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from weakref import WeakSet

from asgiref.sync import sync_to_async
from django.db import connection
from django.http import FileResponse, HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.urls import get_script_prefix, get_urlconf, path

DEADLINE = 10  # seconds until a test that waits for something gives up


class Events(dict[str, threading.Event]):
    """Made when first asked for: by whichever thread that is, one for both (a defaultdict may make two)."""

    def __missing__(self, name: str) -> threading.Event:
        return self.setdefault(name, threading.Event())


events = Events()


class Pool:
    """How many connections of the sync ORM are lent."""

    def __init__(self, pool: Any) -> None:
        self._pool = pool

    @property
    def lent(self) -> int:
        stats = self._pool.get_stats()
        return int(stats["pool_size"] - stats["pool_available"])

    def wait_until_returned(self) -> None:
        """For requests that ended before the query in their thread did: the pool lends all it has."""
        with ExitStack() as lent:
            for _ in range(self._pool.max_size):
                lent.enter_context(self._pool.connection(timeout=DEADLINE))


def select(sql: str = "SELECT 1") -> int:
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return int(cursor.fetchone()[0])


async def empty(request: HttpRequest) -> HttpResponse:
    return HttpResponse()


rendered: WeakSet[HttpResponse] = WeakSet()


class Rendered(HttpResponse):
    """As a TemplateResponse."""

    def render(self) -> HttpResponse:
        self.content = b"rendered"
        return self


async def late(request: HttpRequest) -> HttpResponse:
    response = Rendered()
    rendered.add(response)
    return response


closers: list[Any] = []  # of the next answer of `closing`


async def closing(request: HttpRequest) -> HttpResponse:
    response: Any = HttpResponse()
    response._resource_closers += closers
    return response  # type: ignore[no-any-return]


async def missing(request: HttpRequest) -> HttpResponse:
    return HttpResponse(status=404)


async def state(request: HttpRequest) -> HttpResponse:
    return JsonResponse(
        {
            "method": request.method,
            "path": request.path,
            "info": request.path_info,
            "query": request.GET.dict(),
            "body": request.body.decode(),
            "route": request.resolver_match.route if request.resolver_match else None,
            "urlconf": get_urlconf(),
            "prefix": get_script_prefix(),
            "language": request.headers.get("Accept-Language"),
        },
        headers={"X-Answer": "é"},
    )


async def numbered(request: HttpRequest, number: int) -> HttpResponse:
    return HttpResponse(str(number))


async def cookie(request: HttpRequest) -> HttpResponse:
    response = HttpResponse(b"x" * 200_000)
    response.set_cookie("a", "b")
    return response


async def upload(request: HttpRequest) -> HttpResponse:
    files: dict[str, Any] = request.FILES.dict()
    return JsonResponse({name: len(file.read()) for name, file in files.items()})


def sync(request: HttpRequest) -> HttpResponse:
    return HttpResponse(threading.current_thread().name)


async def orm(request: HttpRequest) -> HttpResponse:
    return HttpResponse(await sync_to_async(select)())


async def orm_raising(request: HttpRequest) -> HttpResponse:
    await sync_to_async(select)()
    raise ValueError


async def orm_in_pieces(request: HttpRequest) -> StreamingHttpResponse:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"%d\n" % await sync_to_async(select)()
        raise ValueError

    return StreamingHttpResponse(pieces())


async def slow_orm(request: HttpRequest) -> HttpResponse:
    def work() -> None:
        select()
        events["working"].set()
        select("SELECT count(pg_sleep(0.2))")

    await sync_to_async(work)()
    return HttpResponse()


async def endless(request: HttpRequest) -> HttpResponse:
    events["waiting"].set()
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        events["cancelled"].set()
        raise
    return HttpResponse()


async def stubborn(request: HttpRequest) -> HttpResponse:
    """Answers in spite of its cancellation."""
    events["waiting"].set()
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        events["cancelled"].set()
    return HttpResponse()


async def stream(request: HttpRequest) -> StreamingHttpResponse:
    async def numbers() -> AsyncIterator[bytes]:
        for number in range(3):
            yield b"%d\n" % number

    return StreamingHttpResponse(numbers())


async def large(request: HttpRequest) -> HttpResponse:
    """More than Django sends in one piece."""
    return HttpResponse(b"x" * 100_000)


async def endless_stream(request: HttpRequest) -> StreamingHttpResponse:
    async def beginning() -> AsyncIterator[bytes]:
        try:
            yield b"first\n"
            await asyncio.Event().wait()
        finally:
            events["cancelled"].set()

    return StreamingHttpResponse(beginning())


class Pieces:
    """Pieces of a sync stream that knows where it was closed."""

    def __iter__(self) -> Iterator[bytes]:
        yield from (b"a", b"b")

    def close(self) -> None:
        events[f"closed in {threading.current_thread().name}"].set()


def sync_stream(request: HttpRequest) -> StreamingHttpResponse:
    return StreamingHttpResponse(Pieces())


def file(request: HttpRequest) -> FileResponse:
    return FileResponse(Path(__file__).open("rb"))


def failing(request: HttpRequest) -> HttpResponse:
    raise ValueError("a message")


def held(request: HttpRequest) -> HttpResponse:
    events["waiting"].set()
    assert events["released"].wait(DEADLINE)
    events["ended"].set()
    return HttpResponse()


VIEWS: list[Any] = [
    empty,
    missing,
    state,
    cookie,
    upload,
    sync,
    orm,
    orm_raising,
    orm_in_pieces,
    slow_orm,
    endless,
]
VIEWS += [stubborn, stream, large, endless_stream, sync_stream, file, failing, held, late, closing]
urlpatterns = [path(view.__name__, view) for view in VIEWS]
urlpatterns += [path("state/<int:number>", numbered)]
handler500 = "api.problems.internal_error"
