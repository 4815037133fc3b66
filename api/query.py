"""Query strings, read strictly: an unknown, repeated, empty or undecodable parameter is refused by its name.

Leniency here would cost twice: a misspelt filter would silently answer something else, and any made-up parameter
would make a new cache key.
"""

from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote_to_bytes

from api.kinds import Kind, Malformed
from api.problems import Fault, invalid

MOST_FAULTS = 10  # named in one answer; a query string may hold thousands


def read(query_string: str, kinds: Mapping[str, Kind]) -> dict[str, Any]:
    """The values of the parameters by name. Raises Problem 422 that names each parameter at fault."""
    texts: dict[str, str] = {}
    values: dict[str, Any] = {}
    faults: list[Fault] = []
    for pair in query_string.split("&"):
        if not pair or len(faults) == MOST_FAULTS:
            continue
        name, _, encoded = pair.partition("=")
        try:
            name = _decode(name)
            if name not in kinds:
                raise Malformed("unknown", "is not a parameter of this resource")
            if name in texts:
                raise Malformed("repeated", "may be given once only")
            texts[name] = _decode(encoded)
            values[name] = _value(kinds[name], texts[name])
        except Malformed as error:
            faults.append(Fault(parameter=name[:50], code=error.code, detail=str(error)))
    if faults:
        raise invalid(faults)
    return values


def _decode(encoded: str) -> str:
    """application/x-www-form-urlencoded text. Raises Malformed for what is no text."""
    try:
        text = unquote_to_bytes(encoded.replace("+", " ")).decode()
    except UnicodeDecodeError:
        raise Malformed("encoding", "is not valid UTF-8") from None
    if "\0" in text:
        raise Malformed("encoding", "may not contain a NUL character")
    return text


def _value(kind: Kind, text: str) -> Any:
    if not text:
        raise Malformed("empty", "may not be empty; leave the parameter out instead")
    return kind.parse(text)
