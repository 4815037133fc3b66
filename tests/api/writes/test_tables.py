"""Resources of other tables than the shop's, from end to end: what clients may write, and where the rows are."""

import json
from types import SimpleNamespace
from typing import Annotated, Any

import pytest
from asgiref.sync import async_to_sync
from django.db import connection, models
from django.http import HttpResponse
from django.test import RequestFactory
from ninja import Schema
from pydantic import Field

from api import AccessPath, BulkWrites, Import, Listing, Timestamp, Writes
from api.problems import Problem
from api.writes import violations
from ops.postgres.commands import NotWritten
from ops.postgres.digests import digest
from tests.ops.postgres.models import Spelled

pytestmark = pytest.mark.django_db


def ask(
    endpoint: Any, method: str, content: Any, *key: Any, kind: str = "application/json", tag: str = ""
) -> Any:
    """The JSON of an answer, or the faults of a refusal."""
    body = content if isinstance(content, str) else json.dumps(content)
    headers = {"If-Match": tag} if tag else {}
    request = RequestFactory().generic(method, "/", body, content_type=kind, headers=headers)

    async def respond() -> HttpResponse:
        answer: HttpResponse = await endpoint(request, *key)
        return answer

    try:
        answer = async_to_sync(respond)()
    except Problem as problem:
        return [(fault.parameter, fault.code) for fault in problem.errors or ()]
    except NotWritten as refusal:
        return [*refusal.unknown, *refusal.items]
    return json.loads(answer.content or b"null")


class Note(Spelled):
    text = models.TextField()
    made = models.DateTimeField(auto_now_add=True)
    changed = models.DateTimeField(auto_now=True)

    class Meta:
        app_label = "spelled"


def ways_of(
    model: type[models.Model], schema: type[Schema], monkeypatch: pytest.MonkeyPatch
) -> tuple[Writes, BulkWrites, Import]:
    """All ways to write rows of a model, whose table is made here."""
    monkeypatch.setattr("api.reads.listing.LISTINGS", [])
    with connection.schema_editor(atomic=False) as editor:
        editor.create_model(model)
    name = model.__name__.lower()
    writes = Writes(Listing(f"{name}s", model._default_manager.all(), schema, AccessPath("id")).one(name))
    return writes, BulkWrites(writes), Import(writes)


class NoteOut(Schema):
    id: int
    text: str
    made: Timestamp
    changed: Timestamp


def test_the_time_of_a_write_is_not_the_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    notes, many, stream = ways_of(Note, NoteOut, monkeypatch)
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


class Depot(Spelled):
    """Its column has the name of the table below, with the schema, `"store"."parcel"`."""

    code = models.CharField(max_length=9, unique=True, db_column="parcel")

    class Meta:
        app_label = "spelled"
        db_table = "store"


class Parcel(Spelled):
    """In another schema than those of the search path, as Django spells it."""

    code = models.CharField(max_length=9, unique=True)
    weight = models.PositiveIntegerField(default=1)
    note = models.CharField(max_length=9, default="")
    depot = models.ForeignKey(Depot, on_delete=models.PROTECT)

    class Meta:
        app_label = "spelled"
        db_table = 'store"."parcel'
        constraints = (models.CheckConstraint(condition=models.Q(weight__lt=50), name="parcel_weight"),)


class DepotOut(Schema):
    id: int
    code: str


class ParcelOut(Schema):
    id: int
    code: str
    weight: int
    note: str
    depot_code: Annotated[str, Field(alias="depot.code")]
    depot: DepotOut


def test_a_table_in_another_schema(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.reads.listing.LISTINGS", [])
    monkeypatch.setattr(violations, "apps", SimpleNamespace(get_models=lambda: [Depot, Parcel]))
    with connection.cursor() as cursor:
        cursor.execute("CREATE SCHEMA store")
    with connection.schema_editor(atomic=False) as editor:
        editor.create_model(Depot)
        editor.create_model(Parcel)
    north = {"id": Depot.objects.create(code="north").pk, "code": "north"}
    listing = Listing("parcels", Parcel.objects.filter(depot__code="north"), ParcelOut, AccessPath("id"))
    parcels = Writes(item := listing.one("parcel"))
    many, stream = BulkWrites(parcels), Import(parcels)

    row = ask(parcels.create, "POST", {"code": "a", "depot_code": "north"})
    whole = {"code": "a", "weight": 1, "note": "", "depot_code": "north", "depot": north}
    assert row == {"id": row["id"]} | whole
    key = row["id"]
    assert ask(item.respond, "GET", "", key) == row
    tag = f'"{digest(json.dumps(row, separators=(",", ":")).encode())}"'
    assert ask(parcels.change, "PATCH", {"weight": 2}, key, tag='"x"') == []
    changed = ask(parcels.change, "PATCH", {"weight": 2}, key, tag=tag)
    assert changed == row | {"weight": 2}
    sent = {name: value for name, value in changed.items() if name != "depot"}
    assert ask(parcels.replace, "PUT", sent | {"note": "x"}, key) == changed | {"note": "x"}
    created = ask(many.create, "POST", [{"code": code, "depot_code": "north"} for code in "bc"])
    assert [each["code"] for each in created] == ["b", "c"]
    ids = [each["id"] for each in created]
    assert ask(many.change, "PATCH", [{"id": each, "weight": 3} for each in ids]) == [
        each | {"weight": 3} for each in created
    ]
    text = '{"code":"d","depot_code":"north"}\n{"code":"e","depot_code":"north","weight":4}'
    assert ask(stream.respond, "POST", text, kind="application/x-ndjson")["inserted"] == 2

    heavy = {"code": "f", "depot_code": "north", "weight": 50}
    refused: list[tuple[Any, str, Any, list[Any]]] = [
        (parcels.create, "POST", heavy | {"depot_code": "no"}, ["depot_code"]),
        (many.create, "POST", [heavy | {"depot_code": "no"}], [(0, "depot_code")]),
        (parcels.create, "POST", heavy, [("weight", "constraint")]),
        (many.create, "POST", [heavy], [("items[0].weight", "constraint")]),
        (parcels.create, "POST", heavy | {"weight": 1, "code": "a"}, [("code", "not_unique")]),
    ]
    for endpoint, method, content, faults in refused:
        assert ask(endpoint, method, content) == faults
    lines = {("weight", "constraint"): heavy, ("code", "not_unique"): {"code": "a", "depot_code": "north"}}
    for (name, code), line in lines.items():
        found = ask(stream.respond, "POST", json.dumps(line), kind="application/x-ndjson")
        assert found == [(f"lines[1].{name}", code)]

    assert ask(parcels.delete, "DELETE", "", key) is None
    assert ask(many.delete, "DELETE", ids) is None
    assert {*Parcel.objects.values_list("code", flat=True)} == {"d", "e"}


class Shirt(Spelled):
    size = models.CharField(max_length=1, choices=[("s", "Small"), ("l", "Large")], blank=True, default="")

    class Meta:
        app_label = "spelled"


class ShirtOut(Schema):
    id: int
    size: str


def test_a_choice_that_may_be_blank(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row is taken as it is answered, one by one, in bulk and in an import."""
    shirts, many, stream = ways_of(Shirt, ShirtOut, monkeypatch)
    assert shirts.creation.model_json_schema()["properties"]["size"]["enum"] == ["s", "l", ""]

    row = ask(shirts.create, "POST", {})
    assert row["size"] == ""
    assert ask(shirts.replace, "PUT", row, row["id"]) == row
    assert ask(many.change, "PATCH", [row]) == [row]
    assert ask(stream.respond, "POST", '{"size":""}', kind="application/x-ndjson")["inserted"] == 1
    assert ask(stream.respond, "POST", 'size\n""\nl\n', kind="text/csv")["inserted"] == 2
    assert ask(shirts.create, "POST", {"size": "x"}) == [("size", "not_a_choice")]
    wrong = ask(stream.respond, "POST", '{"size":"x"}', kind="application/x-ndjson")
    assert wrong == [("lines[1].size", "not_a_choice")]
