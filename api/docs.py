"""The documentation page: Swagger UI from the files that Ninja carries, so that it needs no foreign host.

Four files of a page for developers do not justify a static file server or the middleware that one brings.
"""

import json
from functools import cache
from pathlib import Path
from typing import Any

import ninja
from django.http import Http404, HttpRequest, HttpResponse
from django.urls import URLPattern, path
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


class Docs(DocsBase):
    def render_page(self, request: HttpRequest, api: NinjaAPI, **kwargs: Any) -> HttpResponse:
        settings = {"url": self.get_openapi_url(api, kwargs), "deepLinking": True, "layout": "BaseLayout"}
        return HttpResponse(PAGE.format(title=api.title, settings=json.dumps(settings)))


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
