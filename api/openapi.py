"""The parts of the OpenAPI document, made from the declarations of resources so that the two cannot differ."""

from collections.abc import Mapping, Sequence
from copy import copy
from functools import cache, partial
from http import HTTPStatus
from itertools import count
from typing import Annotated, Any, Union

from django.db.models import AutoField, CheckConstraint, Model
from ninja import Schema
from pydantic import BaseModel, ConfigDict, Field, RootModel, TypeAdapter, create_model
from pydantic.fields import FieldInfo

from api.cache.policy import Policy
from api.idempotency.once import FIELD, MAX_CHARACTERS, PATTERN, REPLAYED
from api.problems import CONTENT_TYPE, ProblemDetails
from api.reads import export as exports
from api.reads.export import CONTENT_TYPES, Export
from api.reads.fields import Timestamp
from api.reads.listing import Listing
from api.reads.parameters import ParameterType
from api.reads.stats import MAX_GROUPS, Stats
from api.writes.bulk import MAX_ITEMS, BulkWrites
from api.writes.content import JSON, MERGE_PATCH
from api.writes.imports import CSV, NDJSON, Import
from api.writes.inputs import Content
from api.writes.resource import Writes
from ops.postgres.compiled import nested

MEANINGS = {
    "limit": "How many results a page has at most.",
    "fields": "The fields to answer, separated by commas.",
    "layout": "`rows`: one object a result. `columns`: one array a field, two fifths of the bytes.",
    "cursor": "Where the page begins: taken from `next` or `previous`, and valid for the same sort and filters.",
}
LINK = {
    "Link": {
        "description": "The pages beside this one, `next` and `prev`, if there are any (RFC 8288).",
        "schema": {"type": "string"},
    }
}
CACHED = {
    "Cache-Control": "How long the answer may be used.",
    "ETag": "The answer's content, in one word (RFC 9110).",
    "Vary": "The request's fields that an answer may depend on.",
    "Age": "Seconds since the answer was made.",
    "Cache-Status": "Where it comes from (RFC 9211): a hit, or `fwd` if it was made now.",
}
PROBLEM = "#/components/schemas/ProblemDetails"


def describe_list(listing: Listing) -> dict[str, Any]:
    """Return the `response` and `openapi_extra` of an endpoint that answers pages of `listing`."""
    item = _item(listing)
    arrays: dict[str, Any] = {
        field: (
            list[Annotated[(info.annotation, Field(), *info.metadata)]],  # type: ignore[name-defined]
            Field(json_schema_extra=partial(_describe_values, info)),
        )
        for field, info in item.model_fields.items()
    }
    table = create_model(f"{item.__name__}Columns", __base__=_Partial, **arrays)
    # Some generated clients try the two schemas in the order of their names, so that of the default layout is first.
    rows = _page(f"{item.__name__}Page", list[item])  # type: ignore[valid-type]
    columns = _page(f"{item.__name__}PageInColumns", table)
    either: Any = rows | columns
    page = create_model(f"{item.__name__}List", __base__=_OneOf, root=(either, ...))
    order = f"The order; `-` reverses it. Without it, a filter brings its own; else it is `{listing.paths[0].sort}`."
    meanings = MEANINGS | {"sort": order} | _filters(listing)
    extra = _extra(listing.parameter_types, meanings)
    extra["responses"] |= {200: {"headers": LINK}}
    return {"response": page, "openapi_extra": extra}


def _describe_values(info: FieldInfo, column: dict[str, Any]) -> None:
    """Copy the description, the examples and other keys of a field to the items of its column."""
    said = {"description": info.description, "examples": info.examples}
    column["items"] |= {key: text for key, text in said.items() if text is not None}
    if callable(extra := info.json_schema_extra):
        extra(column["items"])
    else:
        column["items"] |= extra or {}


def _filters(listing: Listing) -> dict[str, str]:
    """Return the description of each filter: its meanings, each with the sorts that serve it."""
    sorts: dict[str, dict[str, list[str]]] = {}  # by filter and meaning
    for path in listing.paths:
        for name, wanted in path.filters.items():
            meaning = wanted.meaning.format(sort=path.sort, column=wanted.column)
            served = sorts.setdefault(name, {}).setdefault(meaning, [])
            if (sort := f"`[-]{path.sort}`") not in served:
                served.append(sort)
    return {
        name: " ".join(
            f"Filter: {it}. Served with sort {' or '.join(served)}." for it, served in found.items()
        )
        for name, found in sorts.items()
    }


EXPORT_MEANINGS = {
    "format": "`ndjson`: an object a line. `json`: an object with all rows. `csv`: as in RFC 4180.",
    "limit": "How many rows there are at most. Without it, there is no bound.",
    "sort": "The order; `-` reverses it. Without it, rows come in no particular order, unless `limit` or `after` is "
    "given: then in that of the list.",
    "after": "The sort key of a row, as the row shows it, its parts between commas: only rows behind it.",
    "end": "A last line says that the export is complete, and how many rows it has. For `ndjson`.",
    "spreadsheet": "Texts that a spreadsheet would take for a formula get a `'` in front. For `csv`.",
    "fields": MEANINGS["fields"],
}


def describe_export(export: Export) -> dict[str, Any]:
    """Like `describe_list`, for the endpoint that answers all rows as a file."""
    item = _item(export.listing)
    rows = create_model(f"{item.__name__}Export", __base__=Schema, results=(list[item], ...))  # type: ignore[valid-type]
    extra = _extra(export.parameter_types, EXPORT_MEANINGS | _filters(export.listing))
    content = {
        CONTENT_TYPES[exports.NDJSON]: {"schema": {"type": "string"}},
        CONTENT_TYPES[exports.CSV].partition(";")[0]: {"schema": {"type": "string"}},
    }
    name = {"description": "The name of the file.", "schema": {"type": "string"}}
    busy = problem(
        "As many exports run as may, or the database did not answer in time.", Retry_After=RETRY_AFTER
    )
    extra["responses"] |= {200: {"content": content, "headers": {"Content-Disposition": name}}, 503: busy}
    return {"response": rows, "openapi_extra": extra}


def describe_item(listing: Listing) -> dict[str, Any]:
    """Like `describe_list`, for an endpoint that answers one row."""
    return {"response": _item(listing), "openapi_extra": _extra(listing.item_parameter_types, MEANINGS)}


def describe_stats(stats: Stats) -> dict[str, Any]:
    """Like `describe_list`, for an endpoint that answers statistics."""
    name = stats.schema.__name__.removesuffix("Out")
    total = create_model(name, __base__=stats.schema)
    fields: dict[str, Any] = {
        "as_of": (Timestamp, Field(description="When they were computed: all is exact as of then.")),
        "estimated_count": (
            int | None,
            Field(description="Of all rows, as Postgres knows it without a look; null if it does not."),
        ),
        "total": (total, Field(description="Of all rows.")),
    }
    if stats.group_schemas:
        either: Any = Union[tuple(stats.group_schemas.values())]  # noqa: UP007  of any number
        fields["groups"] = (list[either], Field(None, description=f"With `by`: {MAX_GROUPS} at most."))
        fields["has_more_groups"] = (bool, Field(None, description="Whether there are more groups."))
    answer = create_model(f"{name}Answer", __base__=Schema, **fields)
    extra = _extra(stats.parameter_types, {"by": "The field whose values make groups."})
    busy = problem("It is being computed, or the database did not answer in time.", Retry_After=RETRY_AFTER)
    extra["responses"] |= {503: busy}
    return {"response": answer, "openapi_extra": extra}


def describe_answer(schema: type[Schema], problems: Mapping[int, str]) -> dict[str, Any]:
    """Like `describe_list`, for any endpoint, with its answer's schema and the cause of each status in `problems`."""
    responses = {
        status: problem(
            cause, **({"Retry_After": RETRY_AFTER} if status == HTTPStatus.SERVICE_UNAVAILABLE else {})
        )
        for status, cause in problems.items()
    }
    return {"response": schema, "openapi_extra": {"responses": responses}}


IF_MATCH = {
    "in": "header",
    "name": "If-Match",
    "description": "The `ETag` of the row that the client has seen: 412 if it has changed since.",
    "schema": {"type": "string"},
}
TAGGED = {"ETag": {"description": "For If-Match of the next write.", "schema": {"type": "string"}}}


def describe_create(writes: Writes) -> dict[str, Any]:
    """Return the `response` and `openapi_extra` of the endpoint that creates rows."""
    location = {"Location": {"description": "The new row's URL.", "schema": {"type": "string"}}}
    responses = _refusals(415, *_conflicts(writes.model), 422) | {201: {"headers": location | TAGGED}}
    extra = {"requestBody": _content(writes.creation, JSON), "responses": responses}
    return {"response": {201: _item(writes.item.listing)}, "openapi_extra": extra}


def describe_change(writes: Writes) -> dict[str, Any]:
    """Like `describe_create`, for the endpoint that changes a row."""
    return _describe_update(writes, writes.patch, MERGE_PATCH, JSON)


def describe_replace(writes: Writes) -> dict[str, Any]:
    """Like `describe_create`, for the endpoint that replaces a row."""
    return _describe_update(writes, writes.replacement, JSON)


def _describe_update(writes: Writes, model: type[Content], *types: str) -> dict[str, Any]:
    conflicts = _conflicts(writes.model)
    responses = _refusals(412, 415, *conflicts, 422, *[428] * writes.strict) | {200: {"headers": TAGGED}}
    parameters = [IF_MATCH | {"required": writes.strict}]
    content = _content(model, *types, ignored=writes.ignored)
    extra = {"parameters": parameters, "requestBody": content, "responses": responses}
    return {"response": _item(writes.item.listing), "openapi_extra": extra}


def describe_delete(writes: Writes) -> dict[str, Any]:
    """Like `describe_create`, for the endpoint that deletes a row.

    Raises ImproperlyConfigured if only the ORM can delete such rows (ops/postgres/commands.py).
    """
    conflicts = [409] * bool(writes.delete_.model._meta.related_objects)
    responses = _refusals(412, *conflicts, 422, *[428] * writes.strict) | {
        204: {"description": "It is deleted."}
    }
    extra = {"parameters": [IF_MATCH | {"required": writes.strict}], "responses": responses}
    return {"response": {204: None}, "openapi_extra": extra}


def _conflicts(model: type[Model]) -> list[int]:
    """Return [409] if one row may exclude another, by other rules than a key that Postgres makes; else []."""
    rules = [rule for rule in model._meta.constraints if not isinstance(rule, CheckConstraint)]
    unique = (field.unique and not isinstance(field, AutoField) for field in model._meta.concrete_fields)
    return [409] if rules or model._meta.unique_together or any(unique) else []


def describe_import(imports: Import) -> dict[str, Any]:
    """Like `describe_create`, for the endpoint that takes any number of rows as a stream."""
    # the schema of one line: itemSchema comes only with OpenAPI 3.2
    content = _content(imports.writes.creation, *NDJSON)
    content["content"][CSV] = {"schema": {"type": "string"}}
    content["description"] = (
        "A row a line: a JSON object as for one row, or a record of CSV after a line with the names."
    )
    busy = problem(
        "As many imports run as may, or the database did not answer in time.", Retry_After=RETRY_AFTER
    )
    conflicts = _conflicts(imports.writes.model)
    extra = {"requestBody": content, "responses": _refusals(408, *conflicts, 413, 415, 422) | {503: busy}}
    return {"response": Imported, "openapi_extra": extra}


class Imported(Schema):
    """The answer of an import, after its commit."""

    read: int = Field(description="Lines.")
    inserted: int = Field(description="Rows.")
    seconds: float


PREFER = {
    "in": "header",
    "name": "Prefer",
    "required": False,
    "description": "`return=minimal`: the answer has the ids alone (RFC 7240).",
    "schema": {"type": "string"},
    "example": "return=minimal",
}
APPLIED = {
    "Preference-Applied": {"description": "The preference that was honoured.", "schema": {"type": "string"}}
}


def describe_create_many(bulk: BulkWrites) -> dict[str, Any]:
    """Like `describe_create`, for the endpoint that creates many rows."""
    return _describe_many(bulk, 201, _schema(bulk.writes.creation), JSON)


def describe_change_many(bulk: BulkWrites) -> dict[str, Any]:
    """Like `describe_create`, for the endpoint that changes many rows."""
    return _describe_many(bulk, 200, _schema(bulk.patch), MERGE_PATCH, JSON)


def describe_delete_many(bulk: BulkWrites) -> dict[str, Any]:
    """Like `describe_create`, for the endpoint that deletes many rows. Raises errors as `describe_delete` does."""
    conflicts = [409] * bool(bulk.delete_.model._meta.related_objects)
    responses = _refusals(*conflicts, 415, 422) | {204: {"description": "They are deleted."}}
    keys = _items(TypeAdapter(bulk.kind).json_schema(), JSON, uniqueItems=True)
    extra = {"requestBody": keys, "responses": responses}
    return {"response": {204: None}, "openapi_extra": extra}


def _describe_many(bulk: BulkWrites, status: int, items: dict[str, Any], *types: str) -> dict[str, Any]:
    """Describe a write of many rows. `items` is the schema of one of them, `types` are its types of content."""
    listing = bulk.writes.item.listing
    item, key = _item(listing), listing.schema.model_fields[bulk.key_name].annotation
    either: Any = list[item] | list[key]  # type: ignore[valid-type]
    rows = create_model(f"{item.__name__}Rows", __base__=_OneOf, root=(either, ...))
    conflicts = _conflicts(bulk.writes.model)
    responses = _refusals(*conflicts, 415, 422) | {status: {"headers": APPLIED}}
    extra = {"parameters": [PREFER], "requestBody": _items(items, *types), "responses": responses}
    return {"response": {status: rows}, "openapi_extra": extra}


REFUSALS = {
    408: "The rest of the content did not come in time.",
    409: "Another row has this value, or refers to this one.",
    412: "The row has changed since the client saw it.",
    413: "The content is too large.",
    415: "The content has another type.",
    422: "A field or a parameter cannot be understood, or breaks a rule.",
    428: "The write needs If-Match.",
}


def _refusals(*statuses: int) -> dict[int, Any]:
    return {status: problem(REFUSALS[status]) for status in statuses}


def _content(model: type[Content], *types: str, ignored: str = "") -> dict[str, Any]:
    schema = _schema(model, ignored)
    return {"required": True, "content": {each: {"schema": schema} for each in types}}


def _items(schema: dict[str, Any], *types: str, **more: Any) -> dict[str, Any]:
    """Return the `requestBody` for an array of items in any of `types`. `more` are keys of the array's schema."""
    array = {"type": "array", "items": schema, "minItems": 1, "maxItems": MAX_ITEMS, **more}
    return {"required": True, "content": {each: {"schema": array} for each in types}}


def _schema(model: type[Content], ignored: str = "") -> dict[str, Any]:
    """Return the JSON Schema of a request's content, without the property `ignored`."""
    schema = model.model_json_schema(mode="validation")
    for member in schema["properties"].values():  # a null as default would say that the member may be null
        if member.get("default", "") is None:
            del member["default"]
    if ignored:  # the key, which is in the path
        del schema["properties"][ignored]
    return schema


def _page(name: str, results: Any) -> type[Schema]:
    neighbour: Any = (str | None, ...)
    return create_model(name, __base__=Schema, next=neighbour, previous=neighbour, results=(results, ...))


class _OneOf(RootModel[Any]):
    """One of several schemas. Generators understand this, but no property that is either an array or an object."""

    model_config = ConfigDict(json_schema_extra=lambda schema: schema.update(oneOf=schema.pop("anyOf")))


class _Partial(Schema):
    """A schema with properties that may all be missing, since the parameter `fields` chooses."""

    model_config = ConfigDict(json_schema_extra=lambda schema: schema.pop("required", None))


def _item(listing: Listing) -> type[Schema]:
    return _partial(listing.model, listing.schema, tuple(listing.annotations))


@cache  # one class for each schema: two would get different names in the document
def _partial(model: type[Model], schema: type[BaseModel], annotations: tuple[str, ...]) -> type[Schema]:
    """Return the schema as a _Partial, and the schemas of the objects in it likewise."""
    objects: dict[str, Any] = {}
    for name, info in schema.model_fields.items():
        if found := nested(model, schema, name, annotations):
            inner: Any = _partial(found.model, found.schema, annotations if found.relation is None else ())
            of = list[inner] if found.is_list else inner
            objects[name] = (of | None if found.is_nullable else of, copy(info))
    bases: Any = (schema, _Partial)
    partial: type[Schema] = create_model(schema.__name__.removesuffix("Out"), __base__=bases, **objects)
    return partial


def _extra(types: Mapping[str, ParameterType], meanings: Mapping[str, str]) -> dict[str, Any]:
    """Return the `openapi_extra` of an operation with these query parameters, and with the 422 for them."""
    parameters = []
    for name, known in types.items():
        schema = dict(known.schema)
        description = " ".join(filter(None, (meanings[name], schema.pop("description", ""))))
        parameters.append(
            {"in": "query", "name": name, "required": False, "description": description, "schema": schema}
        )
    return {"parameters": parameters, "responses": {422: problem("A parameter cannot be understood.")}}


def with_cache(extra: dict[str, Any] | None, policy: Policy) -> dict[str, Any]:
    """Return the `openapi_extra` of an operation with cached answers: `extra` with condition and header fields."""
    extra = extra or {}
    headers: dict[str, Any] = {
        name: {"description": text, "schema": {"type": "string"}} for name, text in CACHED.items()
    }
    # Examples, not a constant: an answer that went past the cache may have `no-store`.
    headers["Cache-Control"]["schema"]["examples"] = [policy.cache_control.decode(), "no-store"]
    condition = {
        "in": "header",
        "name": "If-None-Match",
        "required": False,
        "description": "The `ETag` of an answer that the client has: 304 if it is still the same.",
        "schema": {"type": "string"},
    }
    unchanged = {name: headers[name] for name in ("Cache-Control", "ETag", "Age", "Cache-Status")}
    known = extra.get("responses", {})
    found = known.get(200, {})
    responses = {
        200: found | {"headers": found.get("headers", {}) | headers},
        304: {"description": "The client has the answer already.", "headers": unchanged},
    }
    return {
        **extra,
        "parameters": [*extra.get("parameters", []), condition],
        "responses": known | responses,
    }


# How a request carries a credential for `scope` (api/auth.py).
CREDENTIALS: dict[str, dict[str, Any]] = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "An API key, or a token, in `Authorization: Bearer`.",
    },
    "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "The same, for tools."},
}


def with_auth(extra: dict[str, Any] | None, scopes: Sequence[Sequence[str]]) -> dict[str, Any]:
    """Return the `openapi_extra` of an operation with authenticators: `extra` with its refusals and credentials.

    `scopes` has, for each authenticator of `scope()`, the scopes that it asks for. Ninja describes its own kinds of
    authenticators.
    """
    extra = extra or {}
    challenge = {"description": "How to authenticate (RFC 9110, 11.6.1).", "schema": {"type": "string"}}
    responses = {
        401: problem("There is no credential, or none that is valid.", WWW_Authenticate=challenge),
        403: problem("The credential lacks a scope.", WWW_Authenticate=challenge),
    }
    security = [{name: [*each]} for each in scopes for name in CREDENTIALS]
    return {
        **extra,
        "responses": responses | extra.get("responses", {}),
        **({"security": security} if security else {}),
    }


def with_limit(extra: dict[str, Any] | None) -> dict[str, Any]:
    """Return the `openapi_extra` of an operation with a rate limit: `extra` with its 429."""
    extra = extra or {}
    left = {"description": "The rest of the quota, and when it is whole again.", "schema": {"type": "string"}}
    refusal = problem("There were too many such requests.", Retry_After=RETRY_AFTER, RateLimit=left)
    return {**extra, "responses": {429: refusal} | extra.get("responses", {})}


def with_idempotency(extra: dict[str, Any] | None, *, is_required: bool) -> dict[str, Any]:
    """Return the `openapi_extra` of an @idempotent operation: `extra` with the field, and its part in the answers."""
    extra = extra or {}
    parameter = {
        "in": "header",
        "name": FIELD,
        "required": is_required,
        "description": "One for this request and each time that it is sent again, such as a UUID: it has its "
        "effect once, and its answer again.",
        "schema": {"type": "string", "maxLength": 2 * MAX_CHARACTERS + 2, "pattern": f"^{PATTERN}$"},
    }
    responses = dict(extra.get("responses", {}))
    for status, said in {
        400: f"The {FIELD} cannot be read{', or is missing' * is_required}.",
        409: f"A request with the same {FIELD} is under way.",
        422: f"The {FIELD} belongs to another request.",
    }.items():
        known = responses.get(status) or problem("")
        responses[status] = known | {"description": f"{known['description']} {said}".lstrip()}
    responses[409] = responses[409] | {"headers": {"Retry-After": RETRY_AFTER}}
    replayed = {"description": "`true`: an answer that was given before.", "schema": {"type": "string"}}
    for status in [status for status in responses if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES]:
        headers = {**responses[status].get("headers", {}), REPLAYED: replayed}
        responses[status] = responses[status] | {"headers": headers}
    return {**extra, "parameters": [*extra.get("parameters", []), parameter], "responses": responses}


def problem(description: str, **headers: dict[str, Any]) -> dict[str, Any]:
    """Return the description of an error answer. In a header's name, `_` stands for `-`."""
    fields = {name.replace("_", "-"): header for name, header in headers.items()}
    content = {CONTENT_TYPE: {"schema": {"$ref": PROBLEM}}}
    return {"description": description, "content": content} | ({"headers": fields} if fields else {})


RETRY_AFTER = {"description": "Seconds to wait before the next try.", "schema": {"type": "integer"}}


def complete(document: dict[str, Any]) -> None:
    """Add the parts that all operations share: the schema of problems, and their error answers.

    Integers get a `format` with their width: without it, generators assume 32 bits, which ids outgrow.
    """
    schema = ProblemDetails.model_json_schema(ref_template="#/components/schemas/{model}")
    document["components"]["schemas"] |= schema.pop("$defs") | {"ProblemDetails": schema}
    for path, operations in document["paths"].items():
        for operation in operations.values():
            for name in {name for needed in operation.get("security", ()) for name in needed} & {
                *CREDENTIALS
            }:
                document["components"].setdefault("securitySchemes", {})[name] = CREDENTIALS[name]
            if body := operation.get(
                "requestBody"
            ):  # replaced, since other documents are made of the declaration's own
                named = {
                    kind: content | {"schema": _named(document["components"]["schemas"], content["schema"])}
                    for kind, content in body["content"].items()
                }
                operation["requestBody"] = body | {"content": named}
            responses = operation["responses"]
            if "{" in path:
                responses.setdefault(404, problem("There is no such resource."))
            responses.setdefault(
                503, problem("The database did not answer in time.", Retry_After=RETRY_AFTER)
            )
            responses.setdefault("default", problem("Any other error."))
    _say_widths(document)


def _named(schemas: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """Put a schema into `schemas` under its title, and return a reference to it; without a title, return the schema.

    So generators make one class of it for all its types of content. The schemas in its $defs, of objects and
    enumerations, are put there as well, since a reference starts at the root of the document.
    """
    if schema.get("type") == "array":
        return schema | {"items": _named(schemas, schema["items"])}
    parts = schema.get("$defs", {})
    for number in count(1):
        names = {part: f"{part}{number}" if number > 1 else part for part in parts}
        named = {names[part]: _referring(parts[part], names) for part in parts}
        if all(schemas.get(name, found) == found for name, found in named.items()):
            break
    schemas |= named
    schema = {key: _referring(value, names) for key, value in schema.items() if key != "$defs"}
    title = schema.get("title")
    if title is None:
        return schema
    name = title
    for number in count(2):
        if schemas.setdefault(name, named := schema | {"title": name}) == named:
            break
        name = f"{title}{number}"
    return {"$ref": f"#/components/schemas/{name}"}


def _referring(node: Any, names: Mapping[str, str]) -> Any:
    """Return a part of a schema with its references changed to components of the document, named by `names`."""
    if isinstance(node, list):
        return [_referring(child, names) for child in node]
    if not isinstance(node, dict):
        return node
    found = {key: _referring(child, names) for key, child in node.items()}
    if isinstance(reference := node.get("$ref"), str):
        found["$ref"] = _renamed(reference, names)
    if isinstance(discriminator := node.get("discriminator"), dict) and "mapping" in discriminator:
        mapping = {value: _renamed(to, names) for value, to in discriminator["mapping"].items()}
        found["discriminator"] = discriminator | {"mapping": mapping}
    return found


def _renamed(reference: str, names: Mapping[str, str]) -> str:
    name = reference.removeprefix("#/$defs/")
    return reference if name == reference else f"#/components/schemas/{names[name]}"


def _say_widths(node: Any) -> None:
    """Give each integer in a part of the document its `format`."""
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        _say_widths(child)
    if isinstance(node, dict) and node.get("type") == "integer":
        bounds = node.get("minimum", -(2**63)), node.get("maximum", 2**63)
        narrow = bounds[0] >= -(2**31) and bounds[1] < 2**31
        node.setdefault("format", "int32" if narrow else "int64")
