"""Values against the schemas of the OpenAPI document, more strictly than it says."""

from collections.abc import Iterator
from typing import Any

from openapi_schema_validator import OAS31Validator, oas31_format_checker


def violations(document: dict[str, Any], schema: dict[str, Any], value: Any) -> Iterator[str]:
    """Where `value` is not what `schema` says. An object may have no property that the schema does not name."""
    strict = _closed({**schema, "components": document["components"]})
    for error in OAS31Validator(strict, format_checker=oas31_format_checker).iter_errors(value):
        yield f"{error.json_path}: {error.message}"


def _closed(node: Any) -> Any:
    if isinstance(node, list):
        return [_closed(child) for child in node]
    if not isinstance(node, dict):
        return node
    closed = {name: _closed(child) for name, child in node.items()}
    return {"additionalProperties": False, **closed} if node.get("type") == "object" else closed
