"""Django's own handler, where it is wanted in place of the lean one, with a Content-Length on every whole answer.

It tells the stopwatch which route a request takes, and when its view has returned.

Django leaves the length to CommonMiddleware, which costs each request two thread hops. Without it, uvicorn answers in
chunks, which HTTP/1.0 clients cannot read (RFC 9112, section 6.1).
"""

from django.core.handlers.asgi import ASGIHandler
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.urls import ResolverMatch

from ops.asgi.protocol import Send
from ops.instruments import stopwatch


class StockASGIHandler(ASGIHandler):
    def resolve_request(self, request: HttpRequest) -> ResolverMatch:
        match = self.match(request)
        if watch := stopwatch.current.get():
            watch.route = match.route
        return match

    def match(self, request: HttpRequest) -> ResolverMatch:
        return super().resolve_request(request)

    async def send_response(self, response: HttpResponseBase, send: Send) -> None:
        stopwatch.respond()
        if isinstance(response, HttpResponse) and not response.has_header("Content-Length"):
            response["Content-Length"] = str(len(response.content))
        await super().send_response(response, send)
