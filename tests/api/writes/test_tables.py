"""Resources of other tables than the shop's, from end to end: what clients may write, and where the rows are."""

import json
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.db import connection, models
from django.http import HttpResponse
from django.test import RequestFactory
from ninja import Schema

from api import AccessPath, BulkWrites, Import, Listing, Timestamp, Writes
from api.problems import Problem
from tests.ops.postgres.models import Spelled

pytestmark = pytest.mark.django_db


def ask(endpoint: Any, method: str, content: Any, *key: Any, kind: str = "application/json") -> Any:
    """The JSON of an answer, or the faults of a refusal."""
    body = content if isinstance(content, str) else json.dumps(content)
    request = RequestFactory().generic(method, "/", body, content_type=kind)

    async def respond() -> HttpResponse:
        answer: HttpResponse = await endpoint(request, *key)
        return answer

    try:
        answer = async_to_sync(respond)()
    except Problem as problem:
        return [(fault.parameter, fault.code) for fault in problem.errors or ()]
    return json.loads(answer.content or b"null")


class Note(Spelled):
    text = models.TextField()
    made = models.DateTimeField(auto_now_add=True)
    changed = models.DateTimeField(auto_now=True)

    class Meta:
        app_label = "spelled"


class NoteOut(Schema):
    id: int
    text: str
    made: Timestamp
    changed: Timestamp


def test_the_time_of_a_write_is_not_the_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.reads.listing.LISTINGS", [])
    with connection.schema_editor(atomic=False) as editor:
        editor.create_model(Note)
    notes = Writes(Listing("notes", Note.objects.all(), NoteOut, AccessPath("id")).one("note"))
    many, stream = BulkWrites(notes), Import(notes)
    for content in (notes.creation, notes.patch, notes.replacement):
        assert content.model_fields.keys() - {"id"} == {"text"}

    early = "2020-01-01T00:00:00Z"
    dated = {"text": "a", "made": early, "changed": early}
    unknown = [("made", "unknown"), ("changed", "unknown")]
    assert ask(notes.create, "POST", dated) == unknown
    assert ask(many.create, "POST", [dated]) == [(f"items[0].{name}", code) for name, code in unknown]
    lines = ask(stream.respond, "POST", json.dumps(dated), kind="application/x-ndjson")
    assert lines == [(f"lines[1].{name}", code) for name, code in unknown]

    row = ask(notes.create, "POST", {"text": "a"})
    key = row["id"]
    writes: list[tuple[Any, str, Any, tuple[int, ...]]] = [
        (notes.change, "PATCH", {"text": "b"}, (key,)),
        (notes.replace, "PUT", {"text": "c"}, (key,)),
        (many.change, "PATCH", [{"id": key, "text": "d"}], ()),
    ]
    for endpoint, method, content, keys in writes:
        answer = ask(endpoint, method, content, *keys)
        changed = answer[0] if isinstance(answer, list) else answer
        assert changed["changed"] > row["changed"] >= row["made"] == changed["made"]
        row = changed
    assert ask(stream.respond, "POST", '{"text":"e"}', kind="application/x-ndjson")["inserted"] == 1
    assert Note.objects.get(text="e").made > Note.objects.get(text="d").made
