"""Django's ASGI handler without the threads and tasks that an async request does not need.

Django's own sends request_started and closes the response in a thread, which it starts and joins for each
request, and wraps the request in two more tasks. Here a request gets what it uses: a sync view or the sync ORM
its thread, a foreign receiver its signal, a long request the watch for a client that leaves
(docs/decisions/0007-lean-handler.md has the figures).
"""

from http import HTTPStatus
from io import BytesIO
from typing import IO, Any

from asgiref.sync import ThreadSensitiveContext, iscoroutinefunction, sync_to_async
from django.conf import settings
from django.core.exceptions import RequestAborted
from django.core.handlers.asgi import get_script_prefix
from django.core.signals import request_finished, request_started
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.urls import ResolverMatch, get_resolver, set_script_prefix, set_urlconf
from django.urls.base import _prefixes  # type: ignore[attr-defined]
from django.utils.log import log_response

from ops.asgi import closing, errorlog, routes, threads
from ops.asgi.answering import answer
from ops.asgi.disconnect import DisconnectWatch
from ops.asgi.locals import is_set
from ops.asgi.protocol import Message, Receive, Scope, Send
from ops.asgi.stock import StockASGIHandler
from ops.instruments import stopwatch


class LeanASGIHandler(StockASGIHandler):
    """Django's handler, whose costs are those of what the request uses."""

    _middleware_chain: Any

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await super().__call__(scope, receive, send)  # refuses it
        async with ThreadSensitiveContext():
            try:
                await self.handle(scope, receive, send)
            except BaseException:
                threads.return_connections()
                raise

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            body = await self.read_body(receive)
        except RequestAborted:
            return
        with body:
            if (prefix := get_script_prefix(scope)) or is_set(_prefixes):
                set_script_prefix(prefix)
            if threads.concerns(request_started):
                await request_started.asend(sender=self.__class__, scope=scope)
            request, response = self.create_request(scope, body)
            try:
                if request is None:
                    await self.send_response(response, send)
                    return
                with DisconnectWatch(self.listen_for_disconnect, receive) as watch:
                    request.disconnect_watch = watch  # type: ignore[attr-defined]
                    response = await self.run_get_response(request)
                    await self.send_response(response, send)
            finally:
                await self.finish(request, response)

    async def read_body(self, receive: Receive) -> IO[bytes]:
        """Spool only a body that comes in parts or is large: most requests are one message with none."""
        message = await receive()
        body = message.get("body", b"")
        if (
            message["type"] == "http.request"
            and not message.get("more_body")
            and len(body) <= settings.FILE_UPLOAD_MAX_MEMORY_SIZE
        ):
            return BytesIO(body)
        return await super().read_body(_put_back(message, receive))

    def match(self, request: HttpRequest) -> ResolverMatch:
        if hasattr(request, "urlconf"):
            match = super().match(request)
        else:
            match = request.resolver_match = routes.resolve(get_resolver(), request.path_info)
        if not iscoroutinefunction(match.func):
            # At once, as Django does: the thread that it takes costs more than the task.
            request.disconnect_watch.start()  # type: ignore[attr-defined]
        return match

    async def get_response_async(self, request: HttpRequest) -> HttpResponseBase:
        """As Django's, which logs error responses in a thread in any case."""
        set_urlconf(settings.ROOT_URLCONF)
        response: Any = await self._middleware_chain(request)
        response._resource_closers.append(request.close)  # noqa: SLF001
        if response.status_code >= HTTPStatus.BAD_REQUEST:
            said: Any = "%s: %s", response.reason_phrase, request.path
            if errorlog.is_quick():
                log_response(*said, response=response, request=request)
            else:
                log = sync_to_async(log_response, thread_sensitive=False)
                await log(*said, response=response, request=request)
        return response  # type: ignore[no-any-return]

    async def send_response(self, response: Any, send: Send) -> None:
        """As StockASGIHandler's, without its loops for what comes in one piece."""
        stopwatch.respond()
        if response.streaming or response.cookies or len(content := response.content) > self.chunk_size:
            await super().send_response(response, send)
            return
        headers = [(name.encode("ascii"), value.encode("latin1")) for name, value in response.items()]
        if not response.has_header("Content-Length"):
            headers.append((b"content-length", b"%d" % len(content)))
        await answer(send, response.status_code, headers, content)

    async def finish(self, request: HttpRequest | None, response: HttpResponseBase | None) -> None:
        """Close the response, if there is one, and send request_finished: in a thread where that matters."""
        if not threads.concerns(request_finished) and not closing.may_block(request, response):
            if response is not None:
                closing.close(response)
            threads.finish_without_thread()
        elif response is None:
            await request_finished.asend(sender=self.__class__)
        else:
            await sync_to_async(response.close)()


def _put_back(message: Message, receive: Receive) -> Receive:
    messages = [message]

    async def receive_again() -> Message:
        return messages.pop() if messages else await receive()

    return receive_again
