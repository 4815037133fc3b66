"""The documentation page: Swagger UI from the files that Ninja carries, so that it needs no foreign host.

Four files for a page for developers do not justify a static file server or its middleware.
"""

import json
from collections.abc import Callable
from functools import cache, wraps
from pathlib import Path
from typing import Any

import ninja
from django.conf import settings as django_settings
from django.http import Http404, HttpRequest, HttpResponse
from django.urls import URLPattern, path
from django.views.decorators.http import conditional_page
from ninja import NinjaAPI
from ninja.openapi.docs import DocsBase

from api.problems import safe_methods

ASSETS = {
    "swagger-ui.css": "text/css",
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui-init.js": "text/javascript",
    "favicon.svg": "image/svg+xml",
}
FOLDER = Path(ninja.__file__).parent / "static" / "ninja"

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{title}</title>
<link rel="stylesheet" href="docs/swagger-ui.css">
<link rel="icon" href="docs/favicon.svg">
</head>
<body>
<script type="application/json" id="swagger-settings">{settings}</script>
<div id="swagger-ui"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/swagger-ui-init.js"></script>
</body>
</html>
"""


# The policy allows Swagger UI's own files, its icons (data URLs in its style sheet), and requests to this API.
# Swagger UI sets styles by script, which a policy does not restrict; the script element in the page is data.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class Docs(DocsBase):
    def render_page(self, request: HttpRequest, api: NinjaAPI, **kwargs: Any) -> HttpResponse:
        settings = {"url": self.get_openapi_url(api, kwargs), "deepLinking": True, "layout": "BaseLayout"}
        page = HttpResponse(PAGE.format(title=api.title, settings=json.dumps(settings)))
        if "Content-Security-Policy" in django_settings.SECURITY_HEADERS:
            page["Content-Security-Policy"] = POLICY
        return page


def revalidated(view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
    """Make a view of GET and HEAD. Clients revalidate its answers by ETag, since a new release may change them."""

    @wraps(view, assigned=())
    def with_cache_control(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        response = view(request, *args, **kwargs)
        response["Cache-Control"] = "public, no-cache"
        return response

    return safe_methods(conditional_page(with_cache_control))


@safe_methods
def asset(_request: HttpRequest, name: str) -> HttpResponse:
    if name not in ASSETS:
        raise Http404
    headers = {"Cache-Control": "public, max-age=86400"}
    return HttpResponse(_read(name), content_type=ASSETS[name], headers=headers)


@cache
def _read(name: str) -> bytes:
    return (FOLDER / name).read_bytes()


urls: list[URLPattern] = [path("docs/<str:name>", asset)]
