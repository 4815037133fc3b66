"""What of a request's header decides how a page is answered, and conditional requests (RFC 9110, section 13)."""

import re
from collections.abc import Iterable
from typing import NamedTuple

from django.utils.http import parse_http_date_safe


class Conditions(NamedTuple):
    """The fields that choose among the representations of a page; empty where not sent."""

    accept_encoding: bytes = b""
    if_none_match: bytes = b""
    if_modified_since: bytes = b""


NONE = Conditions()
PLACES = {b"accept-encoding": 0, b"if-none-match": 1, b"if-modified-since": 2}

# A request with credentials may get an answer of its own, and one with content is none that this cache knows.
PERSONAL = frozenset((b"authorization", b"x-api-key"))
CONTENT = frozenset((b"content-length", b"transfer-encoding", b"expect"))
WATCHED = frozenset((*PLACES, *PERSONAL, *CONTENT))

ETAG = re.compile(rb'(?:W/)?("[\x21\x23-\x7e\x80-\xff]*")')


def read(headers: Iterable[tuple[bytes, bytes]]) -> Conditions | None:
    """The conditions of a request, or None for one that no shared page may answer."""
    watched = [pair for pair in headers if pair[0] in WATCHED]
    if not watched:
        return NONE
    found = [b"", b"", b""]
    for name, value in watched:
        if name not in PLACES:
            return None
        at = PLACES[name]
        found[at] = found[at] + b", " + value if found[at] else value  # a list may come on several lines
    return Conditions(*found)


def is_unchanged(conditions: Conditions, etag: bytes, modified: int | None) -> bool:
    """Whether the client has this representation already: the answer is then 304.

    If-None-Match compares weakly and overrides If-Modified-Since (RFC 9110, sections 13.1.2 and 13.2.2).
    """
    if conditions.if_none_match:
        listed = conditions.if_none_match.strip()
        return listed == b"*" or etag in ETAG.findall(listed)
    since = http_date(conditions.if_modified_since) if conditions.if_modified_since else None
    return modified is not None and since is not None and modified <= since


def http_date(text: bytes) -> int | None:
    """The date of a header field, in seconds since the epoch, or None for what is none (RFC 9110, section 5.6.7)."""
    return parse_http_date_safe(text.decode("latin-1"))
