"""The content of a write: one JSON object, or an array of items, read strictly.

A lenient reader loses data without a word: it keeps only the last of two members with one name, and turns half a
character into a question mark. Here such a member is refused, and named, before the database is asked.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

from django.http import HttpRequest

from api.problems import Fault, Problem, invalid
from api.reads.parameters import MAX_FAULTS

JSON = "application/json"
MERGE_PATCH = "application/merge-patch+json"  # RFC 7396
MAX_DEPTH = 64  # of objects and arrays within each other
MAX_NAME_CHARACTERS = 50  # of a member's name in a problem
SPACE = re.compile(r"[ \t\n\r]*")
SURROGATE = re.compile("[\ud800-\udfff]")
DEEP = "is nested too deeply"
UNKNOWN = ("unknown", "is not a field that this request may set")
MAX_UNKNOWN = 1000  # members; content with as many is not given to pydantic


class Repeated(Exception):
    """An object has several members of one name: two readers of it may see different values."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise Repeated(*(name for name, times in Counter(name for name, _ in pairs).items() if times > 1))
    return found


def _refuse(constant: str) -> None:
    """Refuse NaN and Infinity, which JSON lacks."""
    raise json.JSONDecodeError(f"{constant} is none", "", 0)


# Numbers stay texts, since this parser would make floats of them; the schema reads them.
_decoder = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_refuse, parse_float=str, parse_int=str)


def read(request: HttpRequest, names: Collection[str], types: Sequence[str] = (JSON,)) -> bytes:
    """Return the content, which is one JSON object of sound text. Raises Problem 415, 400, or 422 with its faults.

    `names` are those that its members may have, `types` its media types.
    """
    check_type(request, types)
    return check(request.body, names)


def check(body: bytes, names: Collection[str]) -> bytes:
    """Check content as `read` does, but not its media type. Raises Problem 400, or 422 with its faults."""
    text = _text(body)
    with _refusing():
        found = _decoder.decode(text)
    if not isinstance(found, dict):
        raise Problem(400, "The content is not a JSON object.", code="malformed_json")
    if "\\u" in text or text.count("{") + text.count("[") > 1:
        wrong = ((name, _wrong(name) or _wrong(value)) for name, value in found.items())
        if faults := [(name, fault) for name, fault in wrong if fault]:
            raise _faults(faults)
    _refuse_unknown(name for name in found if name not in names)
    return body


def read_items(request: HttpRequest, names: Collection[str], most: int) -> bytes:
    """Return the content, an array of 1 to `most` items, each as for `check`. The caller has checked its type."""
    text = _text(body := request.body)
    found: list[Any] = []
    with _refusing(lambda: f"items[{len(found)}]"):
        at, is_open = _after_space(text, 0), True
        if text[at : at + 1] != "[":
            _decoder.decode(text)
            raise Problem(400, "The content is not a JSON array.", code="malformed_json")
        while is_open:
            at = _after_space(text, at + 1)
            if not found and text[at : at + 1] == "]":
                raise invalid([Fault(parameter="items", code="empty", detail="may not be empty")])
            if len(found) == most:
                detail = f"may be {most} at most: send the others in another request"
                raise invalid([Fault(parameter="items", code="too_many", detail=detail)])
            item, at = _decoder.raw_decode(text, at)
            found.append(item)
            at = _after_space(text, at)
            is_open = text[at : at + 1] == ","
        if text[at : at + 1] != "]" or _after_space(text, at + 1) < len(text):
            raise json.JSONDecodeError("Expecting ',' delimiter", text, at)
    if "\\u" in text or text.count("{") + text.count("[") > 1 + len(found):
        members = (
            (f"items[{number}].{name}".removesuffix("."), _wrong(name) or _wrong(value))
            for number, item in enumerate(found)
            for name, value in (item.items() if isinstance(item, dict) else [("", item)])
        )
        if faults := [(place, fault) for place, fault in members if fault]:
            raise _faults(faults)
    _refuse_unknown(
        f"items[{number}].{name}"
        for number, item in enumerate(found)
        if isinstance(item, dict)
        for name in item
        if name not in names
    )
    return body


def _refuse_unknown(places: Iterable[str]) -> None:
    """Raise Problem 422 for MAX_UNKNOWN unknown members or more.

    Fewer are left to pydantic, which names them with the other faults, and takes 3 us and 1 kB for each.
    """
    if len(some := [*islice(places, MAX_UNKNOWN)]) == MAX_UNKNOWN:
        raise _faults([(place, UNKNOWN) for place in some])


def _after_space(text: str, at: int) -> int:
    """Return the index of the next token."""
    found = SPACE.match(text, at)
    return found.end() if found else at


def _text(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError:
        raise Problem(400, "The content is not JSON: it is no UTF-8.", code="malformed_json") from None


@contextmanager
def _refusing(place: Callable[[], str] = str) -> Iterator[None]:
    """Raise a Problem for text that cannot be decoded; `place` names the item that is being read."""
    try:
        yield
    except RecursionError:
        raise invalid([Fault(parameter=place(), code="too_deep", detail=DEEP)]) from None
    except Repeated as repeated:
        names = [f"{place()}.{name}".lstrip(".") for name in repeated.args]
        raise _faults([(name, ("repeated", "may be given once only")) for name in names]) from None
    except json.JSONDecodeError as error:
        raise Problem(400, f"The content is not JSON: {error.msg}.", code="malformed_json") from None


def _faults(found: Sequence[tuple[str, tuple[str, str]]]) -> Problem:
    return invalid([
        Fault(parameter=SURROGATE.sub("\ufffd", name)[:MAX_NAME_CHARACTERS], code=code, detail=detail)
        for name, (code, detail) in found[:MAX_FAULTS]
    ])  # fmt: skip


def check_type(request: HttpRequest, types: Sequence[str]) -> None:
    """Raise Problem 415 for content of another type, charset or coding."""
    if request.META.get("CONTENT_TYPE") in types and "HTTP_CONTENT_ENCODING" not in request.META:
        return
    media_type, _, parameters = request.headers.get("Content-Type", "").partition(";")
    charset = re.search(r"charset\s*=\s*\"?([\w-]+)", parameters, re.IGNORECASE)
    coding = request.headers.get("Content-Encoding", "identity").lower()
    if coding != "identity":
        detail = f"Content is taken as it is, not in {coding[:20]!a}."
        raise Problem(415, detail, code="unsupported_media_type", headers={"Accept-Encoding": "identity"})
    if media_type.strip().lower() not in types or (charset and charset[1].lower() not in ("utf-8", "utf8")):
        fields = {"Accept-Patch" if request.method == "PATCH" else "Accept": ", ".join(types)}
        detail = f"Content of this request must have the Content-Type {' or '.join(types)}, in UTF-8."
        raise Problem(415, detail, code="unsupported_media_type", headers=fields)


def _wrong(value: Any) -> tuple[str, str] | None:
    """Return code and detail of a fault in a value, if any: a text that Postgres cannot hold, or too many levels."""
    waiting = [(value, 1)]
    while waiting:
        value, depth = waiting.pop()
        if isinstance(value, str):
            if "\0" in value:
                return "encoding", "may not contain a NUL character"
            if SURROGATE.search(value):
                return "encoding", "may not contain half a character (a lone surrogate)"
        elif isinstance(value, dict | list):
            if depth >= MAX_DEPTH:
                return "too_deep", DEEP
            children = value if isinstance(value, list) else [*value, *value.values()]
            waiting += [(child, depth + 1) for child in children]
    return None
