"""The header fields that choose the representation of an entry, and conditional requests (RFC 9110, section 13)."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from django.utils.http import parse_http_date_safe


class Conditions(NamedTuple):
    """The fields that choose among the representations of an entry; empty where not sent."""

    accept_encoding: bytes = b""
    if_none_match: bytes = b""
    if_modified_since: bytes = b""
    rare: "Rare | None" = None


@dataclass(slots=True)
class Rare:
    """Fields that few requests have, and that only the ASGI layer looks at."""

    if_match: bytes = b""
    if_unmodified_since: bytes = b""
    has_credentials: bool = False

    def add(self, name: bytes, value: bytes) -> None:
        """Record a field whose name is in PRECONDITIONS or CREDENTIALS."""
        if name in CREDENTIALS:
            self.has_credentials = True
        elif name == b"if-match":
            self.if_match = self.if_match + b", " + value if self.if_match else value
        else:
            self.if_unmodified_since = value


UNCONDITIONAL = Conditions()
PLACES = {b"accept-encoding": 0, b"if-none-match": 1, b"if-modified-since": 2}
PRECONDITIONS = frozenset((b"if-match", b"if-unmodified-since"))
# Fields that do not change the answer, but let only the client keep it (RFC 9111, section 3.5). Cookies are not in
# this set: no authenticator here trusts a field that browsers send by themselves.
CREDENTIALS = frozenset((b"authorization", b"x-api-key"))
# A request with content goes past the cache. `Content-Length: 0`, which old clients send with every GET, is no
# content. Whether a chunked request has content is known only once it is read, so it is left to the application.
CONTENT = frozenset((b"content-length", b"transfer-encoding", b"expect"))
WATCHED = frozenset((*PLACES, *PRECONDITIONS, *CREDENTIALS, *CONTENT))

ETAG = re.compile(rb'(W/)?("[\x21\x23-\x7e\x80-\xff]*")')


def conditions_of(headers: Iterable[tuple[bytes, bytes]]) -> Conditions | None:
    """Return the conditions of a request, or None if it may have content: then no entry may answer it."""
    watched = [pair for pair in headers if pair[0] in WATCHED]
    if not watched:
        return UNCONDITIONAL
    found = [b"", b"", b""]
    rare: Rare | None = None
    for name, value in watched:
        if name in PLACES:
            at = PLACES[name]
            found[at] = found[at] + b", " + value if found[at] else value  # a list may come on several lines
        elif name not in CONTENT:
            rare = rare or Rare()
            rare.add(name, value)
        elif name != b"content-length" or value.strip(b"0"):
            return None
    return Conditions(found[0], found[1], found[2], rare)


def fails_precondition(wanted: Rare, etag: bytes, modified: int | None) -> bool:
    """Whether If-Match or If-Unmodified-Since excludes this representation: the answer is then 412.

    `etag` is an entity tag in its quotes, without W/; `modified` is Last-Modified in seconds since the epoch, None if
    the representation has none.

    If-Match compares strongly and overrides If-Unmodified-Since, which is ignored if it is no date (RFC 9110,
    sections 13.1.1, 13.1.4 and 13.2.2).
    """
    if wanted.if_match:
        listed = wanted.if_match.strip()
        return listed != b"*" and (b"", etag) not in ETAG.findall(listed)
    since = http_date(wanted.if_unmodified_since) if wanted.if_unmodified_since else None
    return modified is not None and since is not None and modified > since


def is_unchanged(conditions: Conditions, etag: bytes, modified: int | None) -> bool:
    """Whether the client has this representation already: the answer is then 304.

    `etag` and `modified` are as in `fails_precondition`.

    If-None-Match compares weakly and overrides If-Modified-Since (RFC 9110, sections 13.1.2 and 13.2.2).
    """
    if conditions.if_none_match:
        listed = conditions.if_none_match.strip()
        return listed == b"*" or any(tag == etag for _, tag in ETAG.findall(listed))
    since = http_date(conditions.if_modified_since) if conditions.if_modified_since else None
    return modified is not None and since is not None and modified <= since


def http_date(text: bytes) -> int | None:
    """Return the date in a header field in seconds since the epoch, or None if it is no date (RFC 9110, 5.6.7)."""
    return parse_http_date_safe(text.decode("latin-1"))
