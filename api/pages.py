"""A page as an answer: its rows in the asked layout, and links to its neighbours.

The links are paths, not absolute URLs: they hold behind any proxy, and no Host header gets into a cached answer.
"""

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlencode

import orjson
from django.http import HttpRequest, HttpResponse

from api.cursors import Cursor, seal
from api.listing import DEFAULT_LIMIT, Page
from api.rendering import columns, items

Row = tuple[Any, ...]


def respond(request: HttpRequest, page: Page, rows: Sequence[Row]) -> HttpResponse:
    """`rows` are those of `page.select`, in its order: one more than the page's limit tells of a further page."""
    more, rows = len(rows) > page.limit, rows[: page.limit]
    rows = rows[::-1] if page.backward else rows
    following, previous = _neighbours(page, rows, more=more)
    urls = {
        "next": following and _url(request, page, following),
        "prev": previous and _url(request, page, previous),
    }
    render = items if page.layout == "rows" else columns
    results = render(page.listing, page.fields, page.names, rows)
    body = b'{"next":%b,"previous":%b,"results":%b}' % (*map(orjson.dumps, urls.values()), results)
    response = HttpResponse(body, content_type="application/json")
    if link := ", ".join(f'<{url}>; rel="{rel}"' for rel, url in urls.items() if url):
        response["Link"] = link
    return response


FIRST, LAST = Cursor(before=False, key=None), Cursor(before=True, key=None)


def _neighbours(page: Page, rows: Sequence[Row], *, more: bool) -> tuple[Cursor | None, Cursor | None]:
    """The cursors of the next and the previous page.

    Where this page came from there was a row, so that side has a page. If all its rows have gone since, this page
    lies beyond an end of the list, and its neighbour is the outermost page there.
    """
    came_from = page.cursor is not None and page.cursor.key is not None
    if not rows:
        return (FIRST, None) if came_from and page.backward else (None, LAST if came_from else None)
    after = Cursor(before=False, key=rows[-1][: len(page.key)])
    before = Cursor(before=True, key=rows[0][: len(page.key)])
    if page.backward:
        return after if came_from else None, before if more else None
    return after if more else None, before if came_from else None


def _url(request: HttpRequest, page: Page, cursor: Cursor) -> str:
    listing = page.listing
    parameters: dict[str, Any] = {name: listing.filters[name].spell(v) for name, v in page.filters.items()}
    if page.sort != listing.paths[0].sort:
        parameters["sort"] = page.sort
    if page.limit != DEFAULT_LIMIT:
        parameters["limit"] = page.limit
    if page.fields != listing.default_fields:
        parameters["fields"] = ",".join(page.fields)
    if page.layout != "rows":
        parameters["layout"] = page.layout
    if cursor != FIRST:
        parameters["cursor"] = seal(listing.spell_key(page.path, cursor), page.continues)
    return f"{request.path}?{urlencode(parameters, safe=',:')}" if parameters else request.path
