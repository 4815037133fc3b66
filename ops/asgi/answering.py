"""Sends an answer in one piece, by the shortest way that the given `send` has.

Two ASGI messages cost uvicorn 5 us: it searches the name and the value of each field for forbidden
characters, and writes twice. Here the head is put together at once, searched once, and written with the body: 2 us.
Anything unusual is left to uvicorn, so that the bytes are the same in any case (docs/decisions/0014-one-write.md).
"""

from collections.abc import Awaitable, Callable, Iterable, Sequence

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from ops.asgi.types import Application, Fields, Message, Receive, Scope, Send

CONTROLS = bytes(code for code in (*range(32), 127) if code != ord("\t"))
NOT_MODIFIED = 304
UNUSUAL = frozenset((b"connection", b"transfer-encoding"))  # fields that uvicorn acts on


class Defaults:
    """Header fields that each answer gets unless it has a field of the same name. `lines` are the fields as bytes."""

    __slots__ = ("fields", "lines", "may_be_present", "names")

    def __init__(self, fields: Sequence[tuple[bytes, bytes]] = (), *, may_be_present: bool = False) -> None:
        """Names in `fields` are in lower case. Raises ValueError for a control character: later, none is looked for.

        `may_be_present`: a layer may itself put a field of one of these names on a hit, so each hit is searched for
        them (ops/asgi/hits.py).
        """
        self.fields, self.may_be_present = fields, may_be_present
        self.names = frozenset(name for name, _ in fields)
        self.lines = b"".join(b"%b: %b\r\n" % field for field in fields)
        if len(self.lines) - len(self.lines.translate(None, CONTROLS)) != 2 * len(fields):
            raise ValueError(f"A header field of every answer has a control character: {fields!r}")

    def of(self, status: int) -> "Defaults":
        """Return the defaults of an answer with this status.

        A 304 has none: its fields replace those of the stored answer that it confirms (RFC 9111, 3.2).
        """
        return NONE if status == NOT_MODIFIED else self

    def missing(self, fields: Iterable[tuple[bytes, bytes]]) -> Fields:
        """Return the default fields that an answer with `fields` lacks."""
        own = {name.lower() for name, _ in fields}
        return [field for field in self.fields if field[0] not in own]


NONE = Defaults()


def send_answer(
    send: Send, status: int, fields: Fields, body: bytes, defaults: Defaults = NONE
) -> Awaitable[None]:
    """Send a whole answer: status, header fields, content.

    `defaults` are added to `fields`. If `send` is a method of an object that also has a method
    `send_answer(status, fields, body)`, that method is called: so a layer that replaces `send` gets the answer in one
    piece, too.
    """
    defaults = defaults.of(status)
    sender = getattr(send, "__self__", None)
    if type(sender) is RequestResponseCycle:
        return _in_one(sender, status, fields, body, defaults)
    if defaults is not NONE:
        fields = [*fields, *defaults.missing(fields)]
    whole: Callable[[int, Fields, bytes], Awaitable[None]] | None = getattr(sender, "send_answer", None)
    return whole(status, fields, body) if whole else _in_two(send, status, fields, body)


class TwoMessages:
    """A layer for RUNTIME=stock. It hides the server's `send`, so that `send_answer` sends two messages."""

    def __init__(self, application: Application) -> None:
        self.application = application

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_message(message: Message) -> None:
            await send(message)

        await self.application(scope, receive, send_message)


class Adding:
    """A `send` that adds header fields to the answer."""

    __slots__ = ("_fields", "_send")

    def __init__(self, send: Send, fields: Fields) -> None:
        self._send, self._fields = send, fields

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), *self._fields]}
        await self._send(message)

    def send_answer(self, status: int, fields: Fields, body: bytes) -> Awaitable[None]:
        """Send a whole answer in one piece, with the fields added."""
        return send_answer(self._send, status, [*fields, *self._fields], body)


async def _in_two(send: Send, status: int, fields: Fields, body: bytes) -> None:
    await send({"type": "http.response.start", "status": status, "headers": fields})
    await send({"type": "http.response.body", "body": body})


async def _in_one(
    cycle: RequestResponseCycle, status: int, fields: Fields, body: bytes, defaults: Defaults
) -> None:
    """Write head and body at once; if anything about the answer is unusual, give uvicorn two messages."""
    lowered = [(name.lower(), value) for name, value in fields]  # as uvicorn does
    names = dict(lowered)
    lines = [b"%b: %b\r\n" % field for field in (*cycle.default_headers, *lowered)]
    own = b"".join(lines)
    if (
        cycle.response_started
        or cycle.disconnected
        or cycle.flow.write_paused
        or not cycle.keep_alive
        or cycle.access_log
        or cycle.scope["method"] == "HEAD"
        or names.get(b"content-length") != b"%d" % len(body)
        or not UNUSUAL.isdisjoint(names)
        or not defaults.names.isdisjoint(names)
        or len(own) - len(own.translate(None, CONTROLS)) != 2 * len(lines)  # besides the line breaks
    ):
        fields = [*fields, *defaults.missing(fields)]
        await _in_two(cycle.send, status, fields, body)  # type: ignore[arg-type]  # uvicorn's messages are TypedDicts
        return
    cycle.response_started = cycle.response_complete = True
    cycle.waiting_for_100_continue = False
    cycle.transport.write(b"".join((STATUS_LINE[status], own, defaults.lines, b"\r\n", body)))
    cycle.message_event.set()
    cycle.on_response()
