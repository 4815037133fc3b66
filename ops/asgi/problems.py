"""Problem details (RFC 9457) from ASGI layers, which answer before Django does."""

from collections.abc import Sequence
from http import HTTPStatus

import orjson

from ops.asgi.answering import answer
from ops.asgi.protocol import Send
from ops.instruments.metrics import metrics
from ops.instruments.stopwatch import current

# Where Python's names are older than RFC 9110 (3.11 and 3.12 have those of RFC 4918 and RFC 7231).
TITLES = {413: "Content Too Large", 422: "Unprocessable Content"}


PROBLEMS = metrics.counter("problems_total", "Error answers, by the code that they tell the client.", "code")


def count(code: str) -> None:
    """To be called for each; the line that is logged of a failed request has its code, too."""
    PROBLEMS.labels(code).value += 1
    if watch := current.get():
        watch.code = code


def title(status: int) -> str:
    """The status's name as RFC 9110 has it, whatever the version of Python."""
    return TITLES.get(status) or HTTPStatus(status).phrase


async def refuse(
    send: Send, status: int, code: str, detail: str, headers: Sequence[tuple[bytes, bytes]] = ()
) -> None:
    """Answer with a problem, in the form of api/problems.py."""
    count(code)
    problem = {
        "type": "about:blank",
        "title": title(status),
        "status": status,
        "code": code,
        "detail": detail,
    }
    body = orjson.dumps(problem)
    own = [(b"content-type", b"application/problem+json"), (b"content-length", b"%d" % len(body))]
    await answer(send, status, [*own, *headers], body)
