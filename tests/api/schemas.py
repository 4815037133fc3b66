"""The part of JSON Schema that an OpenAPI document of this service uses, checked strictly."""

import re
from collections.abc import Iterator
from typing import Any

TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}
UNDERSTOOD = {
    *("$ref", "anyOf", "type", "enum", "const", "pattern", "minimum", "maximum", "minLength", "maxLength"),
    *("properties", "required", "items", "additionalProperties", "format", "title", "description", "default"),
    "examples",
}


def resolve(document: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """The schema itself, or what its `$ref` points to in the document. Raises KeyError."""
    while "$ref" in schema:
        target: Any = document
        for step in schema["$ref"].removeprefix("#/").split("/"):
            target = target[step]
        schema = target
    return schema


def violations(document: dict[str, Any], schema: dict[str, Any], value: Any, at: str = "$") -> Iterator[str]:
    """Where `value` is not what `schema` says. An object may have no property that the schema does not name."""
    schema = resolve(document, schema)
    if unknown := schema.keys() - UNDERSTOOD:
        yield f"{at}: the schema's {unknown} are not understood"
    if "anyOf" in schema and all(any(violations(document, s, value, at)) for s in schema["anyOf"]):
        yield f"{at}: {value!r} is none of {schema['anyOf']}"
    if "type" in schema and not _typed(schema["type"], value):
        yield f"{at}: {value!r} is no {schema['type']}"
    elif isinstance(value, dict):
        yield from _members(document, schema, value, at)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from violations(document, schema.get("items", {}), item, f"{at}[{index}]")
    elif not _limited(schema, value):
        yield f"{at}: {value!r} is outside {schema}"


def _members(
    document: dict[str, Any], schema: dict[str, Any], value: dict[str, Any], at: str
) -> Iterator[str]:
    properties = schema.get("properties", {})
    yield from (f"{at}: has no {name}" for name in schema.get("required", ()) if name not in value)
    for name, item in value.items():
        if name in properties:
            yield from violations(document, properties[name], item, f"{at}.{name}")
        elif properties and not schema.get("additionalProperties"):
            yield f"{at}: has an unknown {name}"


def _typed(name: str, value: Any) -> bool:
    return isinstance(value, TYPES[name]) and (name == "boolean" or not isinstance(value, bool))


def _limited(schema: dict[str, Any], value: Any) -> bool:
    if isinstance(value, str):
        return (
            value in schema.get("enum", [value])
            and schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", len(value))
            and re.search(schema.get("pattern", ""), value) is not None
        )
    if isinstance(value, (int, float)):
        return bool(schema.get("minimum", value) <= value <= schema.get("maximum", value))
    return True
