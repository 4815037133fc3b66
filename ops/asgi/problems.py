"""Problem details (RFC 9457) from ASGI layers, which answer before Django does."""

from http import HTTPStatus

import orjson

from ops.asgi.protocol import Send

# Where Python's names are older than RFC 9110 (3.11 and 3.12 have those of RFC 4918 and RFC 7231).
TITLES = {413: "Content Too Large", 422: "Unprocessable Content"}


def title(status: int) -> str:
    """The status's name as RFC 9110 has it, whatever the version of Python."""
    return TITLES.get(status) or HTTPStatus(status).phrase


async def refuse(send: Send, status: int, code: str, detail: str) -> None:
    """Answer with a problem, in the form of api/problems.py."""
    problem = {
        "type": "about:blank",
        "title": title(status),
        "status": status,
        "code": code,
        "detail": detail,
    }
    body = orjson.dumps(problem)
    headers = [(b"content-type", b"application/problem+json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
