"""An answer in one piece, sent by the shortest way that its `send` has.

Two ASGI messages cost uvicorn 5 us: it searches the name and the value of each field for what must not be in there,
and writes twice. Here the head is put together at once, looked through once, and written with the body: 2 us. What is
unusual is left to uvicorn, so that the bytes are the same in any case (docs/decisions/0014-one-write.md).
"""

from collections.abc import Awaitable, Callable

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from ops.asgi.protocol import Fields, Send

CONTROLS = bytes(code for code in (*range(32), 127) if code != ord("\t"))
UNUSUAL = frozenset((b"connection", b"transfer-encoding"))  # uvicorn does something about them


def answer(send: Send, status: int, fields: Fields, body: bytes) -> Awaitable[None]:
    """Whoever stands in between, and gives on a `send` that is its own method, may have a method `answer` as well."""
    sender = getattr(send, "__self__", None)
    if type(sender) is RequestResponseCycle:
        return _answer(sender, status, fields, body)
    whole: Callable[[int, Fields, bytes], Awaitable[None]] | None = getattr(sender, "answer", None)
    return whole(status, fields, body) if whole else _in_two(send, status, fields, body)


async def _in_two(send: Send, status: int, fields: Fields, body: bytes) -> None:
    await send({"type": "http.response.start", "status": status, "headers": fields})
    await send({"type": "http.response.body", "body": body})


async def _answer(cycle: RequestResponseCycle, status: int, fields: Fields, body: bytes) -> None:
    head = _head(cycle, status, fields, body)
    if not head:
        await _in_two(cycle.send, status, fields, body)  # type: ignore[arg-type]  # uvicorn's messages are TypedDicts
        return
    cycle.response_started = cycle.response_complete = True
    cycle.waiting_for_100_continue = False
    cycle.transport.write(head + body)
    cycle.message_event.set()
    cycle.on_response()


def _head(cycle: RequestResponseCycle, status: int, fields: Fields, body: bytes) -> bytes:
    """Status line and fields, or nothing if uvicorn has to see to it."""
    lowered = [(name.lower(), value) for name, value in fields]  # as uvicorn does
    names = dict(lowered)
    if (
        cycle.response_started
        or cycle.disconnected
        or cycle.flow.write_paused
        or not cycle.keep_alive
        or cycle.access_log
        or cycle.scope["method"] == "HEAD"
        or names.get(b"content-length") != b"%d" % len(body)
        or not UNUSUAL.isdisjoint(names)
    ):
        return b""
    lines = [b"%b: %b\r\n" % field for field in (*cycle.default_headers, *lowered)]
    head = b"".join((STATUS_LINE[status], *lines, b"\r\n"))
    return head if len(head) - len(head.translate(None, CONTROLS)) == 2 * len(lines) + 4 else b""
