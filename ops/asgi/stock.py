"""Django's own handler, where it is wanted in place of the lean one, with a Content-Length on every whole answer.

Django leaves that to CommonMiddleware, which costs each request two thread hops. Without it, uvicorn answers in
chunks, which HTTP/1.0 clients cannot read (RFC 9112, section 6.1).
"""

from django.core.handlers.asgi import ASGIHandler
from django.http import HttpResponse
from django.http.response import HttpResponseBase

from ops.asgi.protocol import Send


class StockASGIHandler(ASGIHandler):
    async def send_response(self, response: HttpResponseBase, send: Send) -> None:
        if isinstance(response, HttpResponse) and not response.has_header("Content-Length"):
            response["Content-Length"] = str(len(response.content))
        await super().send_response(response, send)
