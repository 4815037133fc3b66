"""Problem details (RFC 9457) from ASGI layers, which answer before Django does."""

from http import HTTPStatus

import orjson

from ops.asgi.protocol import Send


async def refuse(send: Send, status: int, code: str, detail: str) -> None:
    """Answer with a problem, in the form of api/problems.py."""
    title = HTTPStatus(status).phrase
    body = orjson.dumps(
        {"type": "about:blank", "title": title, "status": status, "code": code, "detail": detail}
    )
    headers = [(b"content-type", b"application/problem+json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
