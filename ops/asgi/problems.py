"""Makes problem details (RFC 9457), for ASGI layers that answer before Django, and for Django."""

from collections.abc import Collection, Sequence
from http import HTTPStatus
from typing import Any

import orjson
from django.http import HttpResponse

from ops.asgi.answering import send_answer
from ops.asgi.types import Send
from ops.telemetry.metrics import metrics
from ops.telemetry.stopwatch import current

# Titles by RFC 9110, where Python 3.11 and 3.12 have the older names of RFC 4918 and RFC 7231.
TITLES = {413: "Content Too Large", 414: "URI Too Long", 422: "Unprocessable Content"}

CONTENT_TYPE = "application/problem+json"
OVERLOADED = "The service has more to do than it can. Try again later."

PROBLEMS = metrics.counter("problems_total", "Error answers, by the code that they tell the client.", "code")


def count(code: str) -> None:
    """Count a problem, and note its code for the log line of the request. To be called once for each problem."""
    PROBLEMS.labels(code).value += 1
    if watch := current.get():
        watch.code = code


def title(status: int) -> str:
    """Return the name of a status in RFC 9110, the same in every version of Python."""
    return TITLES.get(status) or HTTPStatus(status).phrase


def not_allowed(methods: Collection[str]) -> tuple[str, str]:
    """Return the detail of a 405 and its Allow field. `methods` are the view's; GET brings HEAD along (head.py)."""
    allowed = ", ".join(sorted({*methods, "HEAD"} if "GET" in methods else methods))
    return f"This resource answers {allowed}.", allowed


def encode(status: int, code: str, detail: str, **more: Any) -> bytes:
    """Return the body of an error answer, `ProblemDetails` in the OpenAPI document. None in `more` is left out."""
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
    """Count a problem, and answer with it."""
    count(code)
    body = encode(status, code, detail)
    own = [
        (b"content-type", CONTENT_TYPE.encode()),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", b"no-store"),
    ]
    await send_answer(send, status, [*own, *headers], body)


def response(status: int, code: str, detail: str) -> HttpResponse:
    """Count a problem, and return it as a response for Django to send."""
    count(code)
    body = encode(status, code, detail)
    return HttpResponse(body, status=status, content_type=CONTENT_TYPE, headers={"Cache-Control": "no-store"})
