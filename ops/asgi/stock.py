"""Django's own handler, with this service's promises about every answer; ops/asgi/handler.py extends it.

It tells the stopwatch which route a request takes, and when its view has returned. It counts requests for admission
control (ops/asgi/admission.py).

A whole answer has a Content-Length. Django leaves that to CommonMiddleware, which costs each request two thread hops.
Without the field, uvicorn answers in chunks, which HTTP/1.0 clients cannot read (RFC 9112, section 6.1). A 204 and a
304 have no Content-Length (RFC 9110, section 8.6), and no content: a client would take it for the next answer.

An answer without Cache-Control gets settings.CACHE_CONTROL. Without the field, a cache may keep a 404, and may guess
for how long (RFC 9111, section 4.2.2).

If that setting does not exist, neither this field nor the answers 412 and 413 of this module replace Django's own:
Django's tests, which compare whole answers, run that way.
"""

import asyncio
from collections.abc import Mapping
from typing import Any

from django.conf import settings
from django.core.exceptions import RequestDataTooBig
from django.core.handlers.asgi import ASGIHandler
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.urls import ResolverMatch
from django.utils.http import parse_etags

from ops.asgi import problems
from ops.asgi.admission import admission
from ops.asgi.bodies import STREAM, Refused, Stream
from ops.asgi.head import without_content
from ops.asgi.types import SHARED, Send
from ops.telemetry import stopwatch

WITHOUT_CONTENT = frozenset((204, 304))


class StockASGIHandler(ASGIHandler):
    def create_request(self, scope: Mapping[str, Any], body_file: Any) -> Any:
        """As Django's, but a malformed Content-Type, such as `a/b;x*=q''z`, is replaced by `malformed`."""
        try:
            return super().create_request(scope, body_file)
        except ValueError:
            others = [pair for pair in scope["headers"] if pair[0].lower() != b"content-type"]
            return super().create_request(
                {**scope, "headers": [*others, (b"content-type", b"malformed")]}, body_file
            )

    async def run_get_response(self, request: Any) -> Any:
        """As Django's, counted as work until the answer begins, except while a Stream waits for content."""
        stream: Stream | None = request.scope.get(STREAM)
        admission.active += 1
        admission.begun += 1  # exports see from it that other requests have come
        if stream:
            stream.is_counted = True
        try:
            return await super().run_get_response(request)
        finally:
            admission.active -= 1
            if stream:
                stream.is_counted = False

    async def get_response_async(self, request: HttpRequest) -> HttpResponseBase:
        return self.complete(request, await super().get_response_async(request))

    def complete(self, request: Any, response: HttpResponseBase) -> HttpResponseBase:
        """Return the answer with its Cache-Control, or a 412 to a GET if its If-Match names another representation.

        If-Match compares strongly (RFC 9110, 13.1.1). For other methods than GET, the view looks at it.
        """
        fields = response.headers._store  # noqa: SLF001  has_header takes 1.1 us where there is none, setting one 0.9
        if getattr(request, "auth", None):  # as Ninja's authenticators set it
            # A shared cache cannot know that an answer to X-API-Key is for one client, so `public` is replaced.
            stated = fields.get("cache-control", ("", ""))[1].lower()
            if "private" not in stated and "no-store" not in stated:
                fields["cache-control"] = "Cache-Control", "private, no-store"
        elif "cache-control" not in fields and SHARED not in request.scope and (default := _cache_control()):
            fields["cache-control"] = "Cache-Control", default
        if (
            "HTTP_IF_MATCH" not in request.META
            or request.method != "GET"
            or not 200 <= response.status_code < 300  # noqa: PLR2004
            or not _cache_control()
        ):
            return response
        wanted, etag = request.META["HTTP_IF_MATCH"].strip(), response.headers.get("ETag", "")
        if wanted == "*" or (etag in parse_etags(wanted) and not etag.startswith("W/")):
            return response
        detail = "No representation here has an ETag of If-Match."
        refused: Any = problems.response(412, "precondition_failed", detail)
        replaced: Any = response
        if replaced.__class__.close is HttpResponseBase.close:  # it would send request_finished, too
            closers = replaced._resource_closers  # noqa: SLF001
        else:
            closers = [replaced.close]
        refused._resource_closers += closers  # noqa: SLF001
        return refused  # type: ignore[no-any-return]

    def process_exception_by_middleware(self, exception: Exception, request: HttpRequest) -> Any:
        """Answer Refused with its problem, and RequestDataTooBig with the problem 413. Return None for other errors.

        To RequestDataTooBig, Django answers 400, or its error page under DEBUG. A middleware of Django's may answer
        other errors, too.
        """
        if isinstance(exception, Refused):  # by a view that reads its content itself
            return problems.response(*exception.problem)
        if isinstance(exception, RequestDataTooBig) and _cache_control():
            request._mark_post_parse_error()  # type: ignore[attr-defined]  # noqa: SLF001  as Django does
            return problems.response(413, "content_too_large", str(exception))
        return super().process_exception_by_middleware(exception, request)

    def resolve_request(self, request: HttpRequest) -> ResolverMatch:
        match = super().resolve_request(request)
        if watch := stopwatch.current.get():
            watch.route = match.route
        return match

    async def send_response(self, response: HttpResponseBase, send: Send) -> None:
        stopwatch.respond()
        if response.status_code in WITHOUT_CONTENT:
            del response["Content-Length"]
            send = without_content(send)
        elif isinstance(response, HttpResponse) and not response.has_header("Content-Length"):
            response["Content-Length"] = str(len(response.content))
        try:
            await super().send_response(response, send)
        except asyncio.CancelledError:
            # If `send` raised it, it ends only the answer. Django 6.1 would leave the response open, 5.2 closes it.
            if asyncio.current_task().cancelling():  # type: ignore[union-attr]  # a coroutine runs in one
                raise


def _cache_control() -> str:
    """The default Cache-Control; empty in Django's own tests, which have no such setting."""
    return getattr(settings, "CACHE_CONTROL", "")
