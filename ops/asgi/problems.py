"""Problem details (RFC 9457) from ASGI layers, which answer before Django does."""

from collections.abc import Collection, Sequence
from http import HTTPStatus
from typing import Any

import orjson
from django.http import HttpResponse

from ops.asgi.answering import send_answer
from ops.asgi.types import Send
from ops.telemetry.metrics import metrics
from ops.telemetry.stopwatch import current

# Where Python's names are older than RFC 9110 (3.11 and 3.12 have the names of RFC 4918 and RFC 7231).
TITLES = {413: "Content Too Large", 414: "URI Too Long", 422: "Unprocessable Content"}

CONTENT_TYPE = "application/problem+json"
OVERLOADED = "The service has more to do than it can. Try again later."

PROBLEMS = metrics.counter("problems_total", "Error answers, by the code that they tell the client.", "code")


def count(code: str) -> None:
    """To be called for each; the line that is logged of a failed request has its code, too."""
    PROBLEMS.labels(code).value += 1
    if watch := current.get():
        watch.code = code


def title(status: int) -> str:
    """The name of a status in RFC 9110: the same in every version of Python."""
    return TITLES.get(status) or HTTPStatus(status).phrase


def not_allowed(methods: Collection[str]) -> tuple[str, str]:
    """The detail of a 405 and its Allow field. `methods` are the view's; HEAD comes with GET (head.py)."""
    allowed = ", ".join(sorted({*methods, "HEAD"} if "GET" in methods else methods))
    return f"This resource answers {allowed}.", allowed


def encode(status: int, code: str, detail: str, **more: Any) -> bytes:
    """The body of every error answer: `ProblemDetails` in the OpenAPI document. None in `more` is left out."""
    details = {
        "type": "about:blank",
        "title": title(status),
        "status": status,
        "code": code,
        "detail": detail,
    }
    return orjson.dumps(details | {name: value for name, value in more.items() if value is not None})


async def refuse(
    send: Send, status: int, code: str, detail: str, headers: Sequence[tuple[bytes, bytes]] = ()
) -> None:
    """Answer with a problem."""
    count(code)
    body = encode(status, code, detail)
    own = [
        (b"content-type", CONTENT_TYPE.encode()),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", b"no-store"),
    ]
    await send_answer(send, status, [*own, *headers], body)


def response(status: int, code: str, detail: str) -> HttpResponse:
    """The same, where Django sends it."""
    count(code)
    body = encode(status, code, detail)
    return HttpResponse(body, status=status, content_type=CONTENT_TYPE, headers={"Cache-Control": "no-store"})
