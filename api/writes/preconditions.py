"""Conditional writes (RFC 9110, section 13): with If-Match no writer overwrites a change that it has not seen.

An entity tag is the digest of the row's JSON. The statement that writes compares it with the row itself
(ops/postgres/digests.py), so no other write comes between the comparison and the write.
"""

import re

from django.http import HttpRequest

from api.problems import Problem
from ops.postgres.digests import DIGITS

# A strong entity tag of a row, in any of its codings (api/cache/entry.py). Weak ones never match (section 13.1.1).
TAG = re.compile(rf'(?<!W/)"([0-9a-f]{{{DIGITS}}})(?:-[a-z]+)?"')
MAX_TAGS = 100
NEVER = "-"  # the digest of no row
NO_ROW = "This request changes no row that there is already, and takes neither If-Match nor If-None-Match."


def refuse(request: HttpRequest, detail: str = NO_ROW) -> None:
    """Raise Problem 400 if the request has If-Match or If-None-Match, which it cannot heed; `detail` says why."""
    if "HTTP_IF_MATCH" in request.META or "HTTP_IF_NONE_MATCH" in request.META:
        raise Problem(400, detail, code="unsupported_precondition")


def seen(request: HttpRequest, *, is_required: bool = False) -> str | None:
    """Return the digests that If-Match names, joined by commas; None if any row matches: without it, or for `*`.

    Raises Problem 428 if the field is required and missing, 400 for If-None-Match, which no write here can heed.
    """
    fields = request.META  # `request.headers` is a copy of all fields, which takes 15 us to make
    if "HTTP_IF_NONE_MATCH" in fields:
        detail = (
            "A write takes If-Match, not If-None-Match: POST alone creates, and the service chooses the id."
        )
        raise Problem(400, detail, code="unsupported_precondition")
    wanted: str | None = fields.get("HTTP_IF_MATCH")
    if wanted is None:
        if is_required:
            detail = "This write needs If-Match with the ETag of the row that it changes."
            raise Problem(428, detail, code="precondition_required")
        return None
    if wanted.strip() == "*":
        return None
    return ",".join(TAG.findall(wanted)[:MAX_TAGS]) or NEVER
