"""One request for a page of a list, and its answer.

The links are paths, not absolute URLs: they hold behind any proxy, and no Host header gets into a cached answer.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from django.db.models import Model
from django.http import HttpResponse
from pydantic import BaseModel

from api.reads.cursors import Cursor, sign
from ops.postgres.compiled import SEPARATOR, Columns, Json, by_head, row, value
from ops.telemetry.stopwatch import SERIALISATION

LAYOUTS = ("rows", "columns")  # the first is the default


class Layout:
    """How a page shows its rows: the columns that its query selects, and the results that are made of their texts.

    | layout  | columns of the query                                     | results                     |
    | ------- | -------------------------------------------------------- | --------------------------- |
    | rows    | the row as an object                                     | [{"id":1,...},{"id":2,...}] |
    | columns | each of `fields`                                         | {"id":[1,2],...}            |
    | both    | then each sort key field that these do not give exactly  | not shown, for cursors only |
    """

    def __init__(
        self,
        model: type[Model],
        schema: type[BaseModel],
        layout: str,
        fields: Sequence[str],
        key: Collection[str],
        *,
        annotations: Mapping[str, Any],
    ) -> None:
        """`key` are the schema's fields that show the sort key, `annotations` those of the queryset."""
        self.key = key
        self.has_objects = layout == "rows"
        members = by_head(fields)
        self.fields = tuple(members)

        def is_exact(field: str) -> bool:
            return not any(it.may_lose for it, _ in value(model, schema, field, annotations).writers)

        shown = [row(model, schema, fields, annotations)] if self.has_objects else []
        # A sort key is read from the object, unless a document in the object may be unreadable, or the key is a
        # decimal written as a JSON number, which would be read as a double.
        is_read = self.has_objects and not shown[0].contents.has_documents
        missing = [
            field
            for field in key
            if field not in members or (self.has_objects and not (is_read and is_exact(field)))
        ]
        # The fields that have a column of their own.
        self.named = missing if self.has_objects else [*members, *missing]
        self.columns: list[Json] = shown + [
            value(model, schema, field, annotations, members.get(field, ())) for field in self.named
        ]

    def results(self, texts: Sequence[bytes]) -> Iterable[bytes]:
        """Return the JSON of the results in pieces, so that a page is copied only once, into the body."""
        if self.has_objects:
            return b"[", texts[0], b"]"
        arrays = zip(self.fields, texts, strict=False)  # columns for the sort key may follow
        joined = SEPARATOR.join(b'"%b":[%b]' % (field.encode(), text) for field, text in arrays)
        return b"{", joined, b"}"

    def key_of(self, texts: Sequence[bytes]) -> tuple[str, ...]:
        """Return the sort key of one row as a cursor holds it. `texts` has the row's text in each column."""
        values: dict[str, Any] = {}
        if self.has_objects:
            if len(self.named) < len(self.key):
                values = orjson.loads(texts[0])
            texts = texts[1:]
        if self.named:
            values |= {
                field: orjson.loads(text) if text.startswith(b'"') else text.decode()
                for field, text in zip(self.named, texts, strict=True)
            }
        key = [values[field] for field in self.key]
        return tuple([part if isinstance(part, str) else orjson.dumps(part).decode() for part in key])


@dataclass(frozen=True, slots=True)
class ListQuery:
    """A request for a page, parsed, checked and compiled."""

    rows: Columns
    parameters: Sequence[bytes | None]
    layout: Layout
    limit: int
    cursor: Cursor | None
    continues: bytes  # resource, sort and filters, which a cursor of this list is signed with
    link: str  # the canonical query string of all pages of this list, without their cursor

    async def respond(self, path: str) -> HttpResponse:
        """Return the page, with links to its neighbours. Raises psycopg.OperationalError."""
        texts, count = await self.rows.fetch(self.parameters)
        with SERIALISATION:
            # A page before a cursor is read from its end to its beginning.
            backward = self.cursor is not None and self.cursor.before
            resumed = self.cursor is not None and self.cursor.key is not None
            if has_more := count > self.limit:  # the last row only shows that there are more
                texts = [text[: text.rindex(SEPARATOR)] for text in texts]
            if backward:
                texts = [SEPARATOR.join(text.split(SEPARATOR)[::-1]) for text in texts]
            # The row that the cursor was made of lies on one side of the page, so there is a page on that side. If
            # there are no rows here any more, the page lies beyond an end of the list, and its only neighbour is the
            # first or the last page.
            after = before = None
            if not texts[0]:
                if resumed:
                    after, before = (self._url(path), None) if backward else (None, self._url(path, LAST))
            else:
                has_next, has_previous = (resumed, has_more) if backward else (has_more, resumed)
                if has_next:
                    last = self.layout.key_of([text[text.rfind(b"\n") + 1 :] for text in texts])
                    after = self._url(path, Cursor(before=False, key=last))
                if has_previous:
                    first = self.layout.key_of([text.partition(SEPARATOR)[0] for text in texts])
                    before = self._url(path, Cursor(before=True, key=first))
            urls = b'{"next":', orjson.dumps(after), b',"previous":', orjson.dumps(before), b',"results":'
            body = b"".join((*urls, *self.layout.results(texts), b"}"))
            response = HttpResponse(body, content_type="application/json")
            links = [f'<{url}>; rel="{rel}"' for url, rel in ((after, "next"), (before, "prev")) if url]
            if links:
                response["Link"] = ", ".join(links)
            return response

    def _url(self, path: str, cursor: Cursor | None = None) -> str:
        """Return the URL of the page at `cursor`, by default of the first page."""
        query = self.link
        if cursor:
            query += f"{'&' if query else ''}cursor={sign(cursor, self.continues)}"
        return f"{path}?{query}" if query else path


LAST = Cursor(before=True, key=None)
