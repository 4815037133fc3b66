"""Django's ASGI handler with a Content-Length on every answer that is known in full.

Django leaves that to CommonMiddleware, which costs each request two thread hops. Without it, uvicorn answers in
chunks, which HTTP/1.0 clients cannot read (RFC 9112, section 6.1).
"""

from typing import Any

import django
from django.core.handlers.asgi import ASGIHandler
from django.http import HttpResponse
from django.http.response import HttpResponseBase


class Handler(ASGIHandler):
    async def send_response(self, response: HttpResponseBase, send: Any) -> None:
        if isinstance(response, HttpResponse) and not response.has_header("Content-Length"):
            response["Content-Length"] = str(len(response.content))
        await super().send_response(response, send)


def get_application() -> Handler:
    """As django.core.asgi.get_asgi_application."""
    django.setup(set_prefix=False)
    return Handler()
