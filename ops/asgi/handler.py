"""Django's ASGI handler without the threads and tasks that an async request does not need.

For each request, Django's handler makes two more tasks, and starts and joins a thread, in which it calls the
receivers of request_started and closes the response. Here a request gets only the parts that it uses: a thread for
sync code; a signal if it has receivers besides Django's, or connections may be open; a watch for the client's leaving
if the request takes long (docs/decisions/0007-lean-handler.md has the figures).

asgiref starts the thread of a request at its first sync_to_async. Before that, no connection of the sync ORM can have
been opened for the request, so none has to be closed.
"""
# ruff: noqa: SLF001  asgiref's storage and the closers of a response have no public names: ops/checks/private_apis.py

import logging
from functools import lru_cache
from http import HTTPStatus
from io import BytesIO
from typing import IO, Any

from asgiref.local import Local
from asgiref.sync import AsyncToSync, SyncToAsync, ThreadSensitiveContext, iscoroutinefunction, sync_to_async
from django.conf import settings
from django.core.cache import caches, close_caches
from django.core.exceptions import RequestAborted
from django.core.handlers.asgi import get_script_prefix
from django.core.handlers.base import reset_urlconf
from django.core.signals import request_finished, request_started
from django.db import close_old_connections, reset_queries
from django.dispatch import Signal
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.urls import ResolverMatch, set_script_prefix, set_urlconf
from django.urls.base import _prefixes, _urlconfs  # type: ignore[attr-defined]
from django.utils.log import log_response, request_logger

from ops.asgi import routes
from ops.asgi.answering import send_answer
from ops.asgi.disconnect import DisconnectWatch
from ops.asgi.stock import WITHOUT_CONTENT, StockASGIHandler
from ops.asgi.types import Message, Receive, Scope, Send
from ops.telemetry import stopwatch

# Whether a view is a coroutine function, remembered, since to ask takes 1 us.
_is_async = lru_cache(maxsize=1024)(iscoroutinefunction)
# Log handlers that return at once; those for mail, HTTP or syslog may not. FileHandler is a StreamHandler.
QUICK: tuple[type[logging.Handler], ...] = (logging.StreamHandler, logging.NullHandler)


class LeanASGIHandler(StockASGIHandler):
    """Django's handler, in which a request costs only the parts that it uses."""

    _middleware_chain: Any
    _view_middleware: Any
    _exception_middleware: Any
    _template_response_middleware: Any

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await super().__call__(scope, receive, send)  # raises ValueError
        async with ThreadSensitiveContext():
            try:
                await self.handle(scope, receive, send)
            except BaseException:
                # The request ended before its signal could be sent: the connections of its thread go back to their
                # pool after the work that still runs in the thread. Nothing is awaited, so nothing can cancel this.
                context = SyncToAsync.thread_sensitive_context.get()
                if executor := SyncToAsync.context_to_thread_executor.get(context):
                    executor.submit(close_old_connections)
                raise

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As Django's: read the body, send request_started if it has an effect, have the view answer, and finish."""
        try:
            body = await self.read_body(receive)
        except RequestAborted:
            return
        with body:
            if (prefix := get_script_prefix(scope)) or _is_set(_prefixes):
                set_script_prefix(prefix)
            if _concerns(request_started):
                await request_started.asend(sender=self.__class__, scope=scope)
            request, response = self.create_request(scope, body)
            try:
                if request is None:
                    await self.send_response(response, send)
                    return
                with DisconnectWatch(self.listen_for_disconnect, receive) as watch:
                    request.disconnect_watch = watch
                    response = await self.run_get_response(request)
                    await self.send_response(response, send)
            finally:
                await self.finish(request, response)

    async def read_body(self, receive: Receive) -> IO[bytes]:
        """As Django's, but spool only a body that is large or comes in parts: most requests have none."""
        message = await receive()
        body = message.get("body", b"")
        if (
            message["type"] == "http.request"
            and not message.get("more_body")
            and len(body) <= settings.FILE_UPLOAD_MAX_MEMORY_SIZE
        ):
            return BytesIO(body)
        received = [message]

        async def receive_again() -> Message:
            return received.pop() if received else await receive()

        return await super().read_body(receive_again)

    def resolve_request(self, request: HttpRequest) -> ResolverMatch:
        if hasattr(request, "urlconf"):  # a middleware has set it
            match = super().resolve_request(request)
        else:
            match = request.resolver_match = routes.match_of(request.scope, request.path_info)  # type: ignore[attr-defined]
        if not _is_async(match.func):
            # Listen for a disconnect at once, as Django does: a sync view's thread costs more than the task.
            request.disconnect_watch.start()  # type: ignore[attr-defined]
        return match

    async def get_response_async(self, request: HttpRequest) -> HttpResponseBase:
        """As Django's, then `complete`. An error response is logged in a thread only if a log handler may wait."""
        set_urlconf(settings.ROOT_URLCONF)
        response: Any = await self._middleware_chain(request)
        response._resource_closers.append(request.close)
        if response.status_code >= HTTPStatus.BAD_REQUEST:
            said: Any = "%s: %s", response.reason_phrase, request.path
            logger: logging.Logger | None = request_logger
            handlers: list[logging.Handler] = []
            while logger:
                handlers += logger.handlers
                logger = logger.parent if logger.propagate else None
            if all(isinstance(handler, QUICK) for handler in handlers):
                log_response(*said, response=response, request=request)
            else:
                log = sync_to_async(log_response, thread_sensitive=False)
                await log(*said, response=response, request=request)
        return self.complete(request, response)

    async def _get_response_async(self, request: HttpRequest) -> HttpResponseBase:
        """As Django's, shortened if there is no middleware for views, exceptions or template responses."""
        if self._view_middleware or self._exception_middleware or self._template_response_middleware:
            return await super()._get_response_async(request)  # type: ignore[misc,no-any-return]
        match = self.resolve_request(request)
        view: Any = self.make_view_atomic(match.func)
        if not _is_async(view):
            view = sync_to_async(view, thread_sensitive=True)
        try:
            response = await view(request, *match.args, **match.kwargs)
            if not isinstance(response, HttpResponseBase):
                self.check_response(response, match.func)
            elif render := getattr(response, "render", None):
                # Not by _is_async, which would keep the response in memory.
                if not iscoroutinefunction(render):
                    render = sync_to_async(render, thread_sensitive=True)
                response = await render()
        except Exception as error:
            response = self.process_exception_by_middleware(error, request)
            if response is None:
                raise
        return response  # type: ignore[no-any-return]

    async def send_response(self, response: Any, send: Send) -> None:
        """As StockASGIHandler's, but content of one piece is sent without the loops over pieces."""
        stopwatch.respond()
        if (
            response.streaming
            or response.cookies
            or response.status_code in WITHOUT_CONTENT
            or len(content := response.content) > self.chunk_size
        ):
            await super().send_response(response, send)
            return
        headers = [
            (name.encode("ascii"), value.encode("latin1")) for name, value in response.headers._store.values()
        ]
        if "content-length" not in response.headers._store:  # has_header takes 1.1 us
            headers.append((b"content-length", b"%d" % len(content)))
        await send_answer(send, response.status_code, headers, content)

    async def finish(self, request: Any, response: Any) -> None:
        """Close the response, if there is one, and send request_finished if that has an effect.

        If it has, or if closing may wait for a disk or run foreign code (uploaded files, an overridden close, a
        closer besides `request.close`), `response.close` runs in a thread and sends the signal. Else the response is
        closed here, without the signal. `request` or `response` is None if it was not made.
        """
        may_block = getattr(request, "_files", None) or (
            response is not None
            and (
                response._resource_closers not in ([], [request and request.close])
                or response.__class__.close is not HttpResponseBase.close
            )
        )
        if may_block or _concerns(request_finished):
            if response is None:
                await request_finished.asend(sender=self.__class__)
            else:
                await sync_to_async(response.close)()
            return
        if response is not None:  # HttpResponseBase.close() without its signal
            for closer in response._resource_closers:
                try:  # noqa: SIM105  suppress() takes 1 us
                    closer()
                except Exception:  # noqa: BLE001, S110  as Django does
                    pass
            response._resource_closers.clear()
            response.closed = True
        # As two of Django's receivers: reset_urlconf, close_caches. The third has no open connections to close.
        _urlconfs._storage._data.set(None)
        if _is_set(caches._connections):  # type: ignore[attr-defined]
            close_caches()


# The entries of `signal.receivers` that are for the functions `own`.
def _own(signal: Signal, *own: object) -> list[object]:
    return [receiver for receiver in signal.receivers if receiver[1]() in own]


# Django's own receivers, as it connected them: a signal with only these reaches nothing else.
OWN = {
    request_started: _own(request_started, reset_queries, close_old_connections),
    request_finished: _own(request_finished, close_old_connections, reset_urlconf, close_caches),
}


def _concerns(signal: Signal) -> bool:
    """Whether the signal would have an effect now: it has receivers besides Django's, or connections may be open.

    Django's own receivers close the connections that sync code has opened. Sync code runs in the request's thread, or
    in a thread that waits for this coroutine (async_to_sync).
    """
    if signal.receivers != OWN[signal]:
        if {*signal.receivers} != {*OWN[signal]}:
            return True
        # Django's test client disconnects a receiver and connects it again: only the order has changed.
        OWN[signal] = [*signal.receivers]
    context = SyncToAsync.thread_sensitive_context.get(None)
    return context in SyncToAsync.context_to_thread_executor or _is_set(AsyncToSync.executors)


def _is_set(local: Local) -> bool:
    """Whether `local` may hold a value in this context.

    If it holds no value, hasattr raises, formats and catches an error: 2 us, a tenth of Django's cost of a request.
    """
    return local._storage._data.get(None) is not None
