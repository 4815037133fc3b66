"""What the OpenAPI document says of a listing, made from the listing itself so that it cannot drift from it."""

from collections.abc import Mapping
from typing import Any

from ninja import Schema
from pydantic import ConfigDict, create_model

from api.cache.policy import Policy
from api.kinds import Kind
from api.listing import Listing
from api.problems import CONTENT_TYPE, ProblemDetails

MEANINGS = {
    "limit": "How many results a page has at most.",
    "fields": "The fields to answer, separated by commas.",
    "layout": "`rows`: one object a result. `columns`: one array a field, a third of the bytes.",
    "cursor": "Where the page begins: taken from `next` or `previous`, and valid for the same sort and filters.",
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
    """The `response` and `openapi_extra` of an endpoint that answers pages of `listing`."""
    item = _item(listing)
    arrays: dict[str, Any] = {
        field: (list[info.annotation], ...)  # type: ignore[name-defined]
        for field, info in listing.schema.model_fields.items()
    }
    table = create_model(f"{item.__name__}Columns", __base__=_Partial, **arrays)
    page = create_model(
        f"{item.__name__}Page",
        __base__=Schema,
        next=(str | None, ...),
        previous=(str | None, ...),
        results=(list[item] | table, ...),  # type: ignore[valid-type,arg-type]
    )
    return {"response": page, "openapi_extra": _extra(listing.kinds, _meanings(listing))}


def describe_item(listing: Listing) -> dict[str, Any]:
    """The same for an endpoint that answers one resource."""
    return {"response": _item(listing), "openapi_extra": _extra(listing.item_kinds, MEANINGS)}


class _Partial(Schema):
    """Any of its properties may be missing, since `fields` chooses."""

    model_config = ConfigDict(json_schema_extra=lambda schema: schema.pop("required", None))


def _item(listing: Listing) -> type[Schema]:
    name = listing.schema.__name__.removesuffix("Out")
    return create_model(name, __base__=(listing.schema, _Partial))


def _meanings(listing: Listing) -> dict[str, str]:
    order = f"The order; `-` reverses it. Without it, a filter brings its own; else it is `{listing.paths[0].sort}`."
    meanings = MEANINGS | {"sort": order}
    for path in listing.paths:
        for name, wanted in path.filters.items():
            meanings[name] = (
                f"Filter: {wanted.meaning.format(sort=path.sort)}. Served with sort `[-]{path.sort}`."
            )
    return meanings


def _extra(kinds: Mapping[str, Kind], meanings: Mapping[str, str]) -> dict[str, Any]:
    parameters = [
        {"in": "query", "name": name, "required": False, "description": meanings[name], "schema": kind.schema}
        for name, kind in kinds.items()
    ]
    return {"parameters": parameters, "responses": {422: problem("A parameter cannot be understood.")}}


def with_cache(extra: dict[str, Any] | None, policy: Policy) -> dict[str, Any]:
    """The `openapi_extra` of an operation whose answers are cached: its condition, and what its answers tell."""
    extra = extra or {}
    headers: dict[str, Any] = {
        name: {"description": text, "schema": {"type": "string"}} for name, text in CACHED.items()
    }
    headers["Cache-Control"]["schema"]["const"] = policy.cache_control.decode()
    condition = {
        "in": "header",
        "name": "If-None-Match",
        "required": False,
        "description": "The `ETag` of an answer that the client has: 304 if it is still the same.",
        "schema": {"type": "string"},
    }
    unchanged = {name: headers[name] for name in ("Cache-Control", "ETag", "Age", "Cache-Status")}
    responses = {
        200: {"headers": headers},
        304: {"description": "The client has the answer already.", "headers": unchanged},
    }
    return {
        **extra,
        "parameters": [*extra.get("parameters", []), condition],
        "responses": {**extra.get("responses", {}), **responses},
    }


def problem(description: str) -> dict[str, Any]:
    return {"description": description, "content": {CONTENT_TYPE: {"schema": {"$ref": PROBLEM}}}}


def complete(document: dict[str, Any]) -> None:
    """Add what every operation shares: the schema of problems, and the error answers that any of them may give."""
    schema = ProblemDetails.model_json_schema(ref_template="#/components/schemas/{model}")
    document["components"]["schemas"] |= schema.pop("$defs") | {"ProblemDetails": schema}
    for path, operations in document["paths"].items():
        for operation in operations.values():
            responses = operation["responses"]
            if "{" in path:
                responses.setdefault(404, problem("There is no such resource."))
            responses.setdefault(503, problem("The database did not answer in time."))
            responses.setdefault("default", problem("Any other error."))
