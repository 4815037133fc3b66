"""A page as an answer: its rows in the asked layout, and links to its neighbours.

The links are paths, not absolute URLs: they hold behind any proxy, and no Host header gets into a cached answer.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import orjson
from django.http import HttpRequest, HttpResponse

from api.cursors import Cursor, seal
from api.listing import Page
from ops.instruments.stopwatch import SERIALISATION
from ops.postgres.compiled import SEPARATOR


def respond(request: HttpRequest, page: Page, fetched: tuple[list[bytes], int]) -> HttpResponse:
    """`fetched` is what `page.fetch` gave."""
    with SERIALISATION:
        return _response(request, page, *fetched)


def _response(request: HttpRequest, page: Page, columns: list[bytes], count: int) -> HttpResponse:
    if more := count > page.shape.limit:  # the last row only tells that there are more
        columns = [column[: column.rindex(SEPARATOR)] for column in columns]
    if page.backward:
        columns = [SEPARATOR.join(column.split(SEPARATOR)[::-1]) for column in columns]
    after, before = _neighbours(page, columns, more=more)
    following, previous = after and _url(request, page, after), before and _url(request, page, before)
    urls = (b'{"next":', orjson.dumps(following), b',"previous":', orjson.dumps(previous), b',"results":')
    response = HttpResponse(
        b"".join((*urls, *_results(page, columns), b"}")), content_type="application/json"
    )
    if link := ", ".join(
        [f'<{url}>; rel="{rel}"' for url, rel in ((following, "next"), (previous, "prev")) if url]
    ):
        response["Link"] = link
    return response


def _results(page: Page, columns: Sequence[bytes]) -> Iterable[bytes]:
    """In pieces: a page is copied once, into the body."""
    if page.shape.layout == "rows":
        return b"[", columns[0], b"]"
    arrays = zip(page.shape.fields, columns, strict=False)  # the key's columns may follow
    joined = SEPARATOR.join(b'"%b":[%b]' % (field.encode(), column) for field, column in arrays)
    return b"{", joined, b"}"


FIRST, LAST = Cursor(before=False, key=None), Cursor(before=True, key=None)


def _neighbours(page: Page, columns: Sequence[bytes], *, more: bool) -> tuple[Cursor | None, Cursor | None]:
    """The cursors of the next and the previous page.

    Where this page came from there was a row, so that side has a page. If all its rows have gone since, this page
    lies beyond an end of the list, and its neighbour is the outermost page there.
    """
    came_from = page.cursor is not None and page.cursor.key is not None
    if not columns[0]:
        return (FIRST, None) if came_from and page.backward else (None, LAST if came_from else None)
    has_next, has_previous = (came_from, more) if page.backward else (more, came_from)
    after = (
        Cursor(before=False, key=_key(page, [c[c.rfind(b"\n") + 1 :] for c in columns])) if has_next else None
    )
    before = (
        Cursor(before=True, key=_key(page, [c.partition(SEPARATOR)[0] for c in columns]))
        if has_previous
        else None
    )
    return after, before


def _key(page: Page, row: Sequence[bytes]) -> tuple[str, ...]:
    """The key of a row, as text, from what was selected of it."""
    shape, key = page.shape, page.listing.keys[page.shape.path]
    values: dict[str, Any]
    if shape.layout == "rows":
        values, rest = orjson.loads(row[0]), row[1:]
    else:
        values = {field: orjson.loads(text) for field, text in zip(shape.fields, row, strict=False)}
        rest = row[len(shape.fields) :]
    if rest:
        lacking = [field for field in key if field not in shape.fields]
        values |= {field: orjson.loads(text) for field, text in zip(lacking, rest, strict=True)}
    return tuple([_text(values[field]) for field in key])


def _text(value: Any) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def _url(request: HttpRequest, page: Page, cursor: Cursor) -> str:
    query = page.link
    if cursor is not FIRST:
        query += f"{'&' if query else ''}cursor={seal(cursor, page.continues)}"
    return f"{request.path}?{query}" if query else request.path
