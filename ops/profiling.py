"""Silk's middleware, for async views.

Silk's own is sync: a thread waits in it while the view runs on the event loop, so it profiles only the wait. This
middleware uses the thread only to record, and profiles while the view runs. cProfile sees code on the event loop and,
since Python 3.12, in the request's thread, too: sync views and the database driver.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable
from cProfile import Profile

from asgiref.sync import markcoroutinefunction, sync_to_async
from django.conf import settings
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from silk.collector import DataCollector  # type: ignore[import-untyped]
from silk.middleware import SilkyMiddleware  # type: ignore[import-untyped]


class SilkMiddleware(SilkyMiddleware):  # type: ignore[misc]  # untyped: it ships no py.typed
    """Records the requests with a path that matches settings.SILK_RECORDS, one after the other.

    Python has one profiler, which sees all code that runs: two requests at once would both be in each profile.
    """

    async_capable, sync_capable = True, False

    def __init__(self, get_response: Callable[[HttpRequest], Awaitable[HttpResponseBase]]) -> None:
        super().__init__(get_response)
        markcoroutinefunction(self)
        self.turn = asyncio.Lock()
        self.recorded = re.compile(settings.SILK_RECORDS).match

    async def __call__(self, request: HttpRequest) -> HttpResponseBase:
        request.silk_filters = {}  # type: ignore[attr-defined]  # Silk's pages keep their state there
        if not self.recorded(request.path):
            return await self.get_response(request)  # type: ignore[no-any-return]
        async with self.turn:
            await sync_to_async(self.process_request)(request)
            profile = Profile()
            with profile:
                response = await self.get_response(request)
            return await sync_to_async(self.finish)(request, response, profile)

    def finish(self, request: HttpRequest, response: HttpResponseBase, profile: Profile) -> HttpResponseBase:
        DataCollector().local.pythonprofiler = profile
        return self.process_response(request, response)  # type: ignore[no-any-return]
