"""The HTTP edge: limits of size and time for clients.

Uvicorn and httptools leave both to a proxy. Here heads, chunk framing and trailers have a limit, every wait for the
client has a deadline, and an upgrade, which this service never does, is ignored as RFC 9110 7.8 allows. The limits
are those of ops/gunicorn/limits.py.

| a connection waits for | until | then |
| --- | --- | --- |
| its first request | `patience_seconds`, or the keep-alive time if that is shorter | it is closed |
| the next request | the keep-alive time since the last answer, not prolonged by blank lines | it is closed |
| the rest of a head | `patience_seconds` since its first byte | 408 |
| the rest of content | less than the least rate came in a span of `patience_seconds` | 408, if no answer has begun |
| the rest of content, after the answer | `patience_seconds` since the answer | it is closed |
| the application | the application's own deadlines | |
| the client to read | nothing was read in a span of `patience_seconds` | it is reset |
| the client to close, after a refusal or an early answer | `linger_seconds`, longer while it reads | it is aborted |

Each connection has one timer for all these deadlines. It may be late: most waits only note when they began.

The states of a connection, over the classes from uvicorn's HttpToolsProtocol to ops/gunicorn/wire.py:

| state | attributes | bytes that come | next state |
| --- | --- | --- | --- |
| at rest | `cycle` is None or complete | a head. The same hit again (`_known`) is answered at once | head, closed |
| head | `_is_reading` | its rest. A hit is answered at once | content, answering, at rest, refused |
| content | `_is_reading`, `_in_content` | content of `cycle`, the last request that came | answering, refused |
| answering | `_running` is not complete | 16 requests for `pipeline`, then bytes for `flow.unread` | at rest |
| refused | `parser` is DISCARD | is dropped. `_refusal` waits for the answers before it | leaving |
| leaving | refusal or early answer, and the end, are written | is dropped | closed |

A connection may be answering while it reads the next head or content. While the server drains, the answer to
`_last` says `Connection: close`, after which uvicorn closes (ops/gunicorn/draining.py).
"""

import logging
import os
import re
import struct
import sys
from asyncio import TimerHandle, Transport
from fcntl import ioctl
from socket import SO_LINGER, SOL_SOCKET, socket
from termios import TIOCOUTQ
from typing import Any, NamedTuple, NoReturn, cast
from weakref import ref

import httptools
from django.conf import settings
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from ops.asgi import problems
from ops.asgi.hits import front_of
from ops.asgi.types import REFUSED
from ops.gunicorn.limits import Limits
from ops.gunicorn.loop import LAST_MOMENT_SECONDS
from ops.gunicorn.pipelining import MAX_WAITING_REQUESTS, PipeliningProtocol
from ops.telemetry import request_id, request_stats
from ops.telemetry.headers import hit_block
from ops.telemetry.stopwatch import UNMATCHED

# Bytes that the parser gets at once. It collects targets and fields piecewise, in quadratic time. After each piece,
# the size and the number of waiting requests are checked: uvloop reads 256 kB at once, 6,000 requests, which took
# 12 MB.
PIECE_BYTES = 16 * 1024
FRAMING_BYTES = 8  # bytes, with framing, allowed for each byte of content: a chunk of one byte takes 6
FRAMES = frozenset((b"content-length", b"transfer-encoding"))
ABSOLUTE = re.compile(rb"https?://([^/?#]*)(.*)", re.IGNORECASE | re.DOTALL)

logger = logging.getLogger("ops.edge")


class Refusal(NamedTuple):
    """A problem that answers a request, after which the connection closes."""

    status: int
    code: str
    detail: str


class Stop(Exception):
    """Raised in a callback to stop the parser; a new instance each time, since its traceback holds the connection."""


# The parser knows only some methods. Bytes that begin with none of them may be anything, such as TLS.
MALFORMED = Refusal(400, "bad_request", "This is not HTTP/1.1 as RFC 9112 has it, or its method is unknown.")
FAILED = Refusal(500, "internal_error", "The service failed; the error has been logged.")
NO_PROXY = Refusal(501, "not_implemented", "This is no proxy.")
UNKNOWN_CODING = Refusal(501, "unknown_coding", "Content is taken as it is or chunked, in no other coding.")
LATE = Refusal(408, "request_timeout", "The rest of the request did not come in time.")


class Discard(httptools.HttpRequestParser):
    """Replaces the parser of a connection that is refused: further bytes are read and dropped.

    If the socket were closed, the kernel would answer further bytes with a reset, which can overtake the refusal.
    """

    def feed_data(self, data: object) -> None:
        pass


DISCARD = Discard(None)


def _end_with_connection(protocol: "EdgeProtocol", cycle: RequestResponseCycle) -> None:
    """Have an answer without a length end with the connection, since HTTP/1.0 has no chunks (RFC 9112, 6.1)."""
    ending = cycle.transport = Ending(protocol, cycle)  # type: ignore[assignment]
    known = ref(cycle)  # weak, since the cycle refers to this function

    async def send_unchunked(message: Any) -> None:
        cycle = cast("RequestResponseCycle", known())  # never None here: the cycle calls the application
        if message["type"] == "http.response.start":
            names = {name.lower() for name, _ in message.get("headers", ())}
            ending.is_unsized = b"content-length" not in names
            if ending.is_unsized:  # uvicorn cannot express that: a length that no content reaches
                cycle.chunked_encoding, cycle.expected_content_length = False, sys.maxsize
        elif ending.is_unsized and not message.get("more_body"):
            cycle.expected_content_length = len(message.get("body", b""))
        await RequestResponseCycle.send(cycle, message)

    cycle.send = send_unchunked  # type: ignore[method-assign]
    cycle.keep_alive = False


class Ending:
    """The transport of a cycle, with a `close` by which the client can tell whether its answer is whole."""

    def __init__(self, protocol: "EdgeProtocol", cycle: RequestResponseCycle) -> None:
        self._protocol, self._cycle = protocol, ref(cycle)  # weak, since the cycle refers to this object
        self.write, self.is_closing = protocol.transport.write, protocol.transport.is_closing
        self.is_unsized = False  # whether the end of the connection is the end of the answer

    def close(self) -> None:
        protocol, cycle = self._protocol, self._cycle()
        if self.is_unsized and cycle and not cycle.response_complete:
            protocol.reset()  # otherwise an answer that was cut would look whole
        elif protocol.is_amid_content():
            protocol.linger()  # a reset could overtake the answer
        else:
            protocol.transport.close()


class EdgeProtocol(PipeliningProtocol):
    """uvicorn's protocol with limits and deadlines."""

    limits: Limits
    url = b""
    _is_reading = False  # whether the end of a request is still to come
    _in_content = False  # whether the head of that request has come
    _read = 0  # bytes of that request in the pieces before this one
    _content = 0  # bytes of that request's content
    _idle_since = 0.0  # when the last answer was given
    _since = 0.0  # when the wait began for the rest of the head, or for more content
    _read_then = 0  # `_read` at that moment
    _awaits_content = False  # whether that wait is for content
    _unsent = 0  # bytes that the client had not yet read at the last look
    _unsent_since = 0.0  # when that number last changed
    _watch: TimerHandle
    _refusal = b""  # to be sent after the answers to earlier requests
    _reason: Refusal | None = None  # why the parser was stopped
    _is_resuming = False  # whether a new parser is reading a head that the parser before it has read

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]  # as in uvicorn's
        super().connection_made(transport)
        # The server may serve another application, without Django.
        self.limits = settings.REQUEST_LIMITS if settings.configured else Limits()
        self._patience = self.limits.patience_seconds
        silence = min(self._patience, self.timeout_keep_alive)
        # As if the connection had been idle for a while, so that it is closed after `silence`.
        self._idle_since = self.loop.time() + silence - self.timeout_keep_alive
        self._watch = self.loop.call_later(silence, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._watch.cancel()
        # Each of these refers to the protocol, which would live until a full collection: 10 kB for each connection.
        self.parser, self._running, self.flow.unread = DISCARD, None, b""
        self.cycle, self.scope = None, {}  # type: ignore[assignment, typeddict-item]
        self.pipeline.clear()

    def data_received(self, data: bytes) -> None:
        if len(data) > PIECE_BYTES:
            self._read_pieces(data)
            return
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            rest = data[upgrade.args[0] :]
        except httptools.HttpParserCallbackError as error:
            if not self._reason:  # an error of this code, or of a layer that was asked about a hit
                cause = error.__context__  # the callback's error, unless another one is being handled
                logger.exception("what is called while a request is parsed failed", exc_info=cause)
            self._refuse(self._reason or FAILED)
            return
        except httptools.HttpParserError:
            self._refuse(MALFORMED)
            return
        else:
            if self._is_reading:
                self._count(len(data))
            return
        self._ignore_upgrade()
        EdgeProtocol.data_received(self, rest)

    def _read_pieces(self, data: bytes) -> None:
        """Read until MAX_WAITING_REQUESTS requests wait; the rest is read after an answer."""
        for start in range(0, len(data), PIECE_BYTES):
            if len(self.pipeline) >= MAX_WAITING_REQUESTS:
                self.flow.unread = data[start:]
                return
            piece = data[start : start + PIECE_BYTES]
            EdgeProtocol.data_received(self, piece)
            if piece.isspace() and not self._is_reading and self.parser is not DISCARD:
                self._count(PIECE_BYTES)  # blank lines, which the parser does not report

    def shutdown(self) -> None:
        """As uvicorn's, but a request that has come in part gets some time for its rest."""
        if self._is_reading and self._is_at_rest():  # a head is coming: its answer will end the connection
            self.timeout_keep_alive = LAST_MOMENT_SECONDS
        else:
            super().shutdown()
        if self.transport.is_closing():
            return
        self._watch.cancel()
        self._watch = self.loop.call_later(self.timeout_keep_alive, self._look)
        if self._is_reading:
            self._patience = self.limits.linger_seconds
            self._wait()

    # --- The parser's calls -----------------------------------------------------------------------

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if not self._is_reading:
            self._is_reading, self._read = True, 0

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a field of the head or of the trailers."""
        name = name.lower()
        if name == b"expect":
            is_1_1 = self.parser.get_http_version() == "1.1"  # RFC 9110, 10.1.1
            self.expect_100_continue = is_1_1 and value.lower() == b"100-continue"
        elif name == b"transfer-encoding":
            if self.parser.get_http_version() != "1.1":
                self._stop(MALFORMED)  # RFC 9112, 6.1
            if value.lower().strip() != b"chunked":
                self._stop(UNKNOWN_CODING)
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        limits = self.limits
        if (
            len(self.headers) > limits.max_fields
            or self._read > limits.max_head_bytes - PIECE_BYTES
            or len(self.url) > limits.max_target_bytes
        ):
            size = len(self.url) + sum(
                len(name) + len(value) + len(b": \r\n") for name, value in self.headers
            )
            if (
                size > limits.max_head_bytes
                or len(self.headers) > limits.max_fields
                or len(self.url) > limits.max_target_bytes
            ):
                self._stop(self._too_large())
        if self.url[:1] != b"/":
            if self._is_resuming:
                self._in_content = True
                return
            self._find_path()
        try:
            super().on_headers_complete()
        except (httptools.HttpParserInvalidURLError, UnicodeError):
            self._stop(MALFORMED)
        if self.parser.get_http_version() != "1.1":
            _end_with_connection(self, self.cycle)
        elif self.parser.get_method() not in (b"GET", b"HEAD"):
            self.cycle.transport = Ending(self, self.cycle)  # type: ignore[assignment]
        self._in_content, self._read = (
            True,
            int(self._read > 0),
        )  # 1: the wait has begun with an earlier piece
        self.headers = []  # trailers may come: the application has the fields of the head

    def on_body(self, body: bytes) -> None:
        self._content += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """As uvicorn's, without its question whether the connection is upgraded."""
        self._is_reading = self._in_content = False
        self._content = 0
        cycle = self.cycle
        if not cycle.response_complete:
            cycle.more_body = False
            cycle.message_event.set()

    # --- Limits -----------------------------------------------------------------------------------

    def _count(self, size: int) -> None:
        """Bound the size of a request that has come in part, and the wait for its rest, after `size` more bytes."""
        if not self._read or self._in_content != self._awaits_content:
            self._wait()
        self._read += size
        # The first piece of a request may also hold the end of earlier ones.
        if self._read > self.limits.max_head_bytes + PIECE_BYTES + FRAMING_BYTES * self._content:
            self._refuse(self._too_large())

    def _too_large(self) -> Refusal:
        limits = self.limits
        if self._in_content:
            return Refusal(
                400, "framing_too_large", f"Trailers and chunks take more than {limits.max_head_bytes} bytes."
            )
        if len(self.url) > limits.max_target_bytes:
            return Refusal(
                414, "target_too_long", f"The target has more than {limits.max_target_bytes} bytes."
            )
        return Refusal(
            431,
            "head_too_large",
            f"The head has more than {limits.max_head_bytes} bytes or {limits.max_fields} fields.",
        )

    # --- Requests that uvicorn treats otherwise than RFC 9112 -------------------------------------------------------

    def _find_path(self) -> None:
        """Take a target that is no path (RFC 9112, 3.2.2 and 3.2.4). The host of an absolute target replaces Host."""
        method = self.parser.get_method()
        if method == b"CONNECT":
            self._stop(NO_PROXY)
        if found := ABSOLUTE.fullmatch(self.url):
            host, path = found.groups()
            self.url = path if path.startswith(b"/") else b"/" + path
            named = [index for index, field in enumerate(self.headers) if field[0] == b"host"]
            if len(named) == 1:  # without Host, or with two, it is a bad request as ever
                self.headers[named[0]] = b"host", host
        elif self.url != b"*" or method != b"OPTIONS":
            self._stop(MALFORMED)

    def _ignore_upgrade(self) -> None:
        """Keep reading the request at which httptools has stopped, as if it had offered no upgrade.

        httptools takes the offer for accepted, the request for ended, and its content for the next head.
        """
        cycle = self.cycle
        self._is_reading = self._in_content = True
        if cycle.scope["method"] == "CONNECT":
            self._refuse(NO_PROXY)
            return
        cycle.more_body = True
        cycle.message_event.clear()
        head = [b"POST * HTTP/1.1"]
        head += [b"%b: %b" % field for field in cycle.scope["headers"] if field[0] in FRAMES]
        head += [] if cycle.keep_alive else [b"connection: close"]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's
        self._is_resuming = True
        self.parser.feed_data(b"\r\n".join((*head, b"\r\n")))
        self._is_resuming = False

    # --- Deadlines --------------------------------------------------------------------------------

    def on_response_complete(self) -> None:
        """As uvicorn's, but it notes the time instead of starting a timer, which costs 1 us a request."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        if self.flow.unread and len(self.pipeline) < MAX_WAITING_REQUESTS:
            unread, self.flow.unread = self.flow.unread, b""
            self._read_pieces(unread)
        self.flow.resume_reading()
        if not self._is_at_rest():
            return
        if self._refusal:
            self._leave(self._refusal)
        else:
            self._idle_since = self.loop.time()

    def _wait(self) -> None:
        """Begin to wait for the rest of a request."""
        self._since, self._read_then, self._awaits_content = self.loop.time(), self._read, self._in_content
        self.flow.was_paused = self.flow.read_paused
        due = self._since + self._patience
        if self._watch.when() > due:
            self._watch.cancel()
            self._watch = self.loop.call_at(due, self._look)

    def _look(self) -> None:
        """End a wait that is overdue, as the table of the module says; else look again when the next one may be."""
        now, patience, transport = self.loop.time(), self._patience, self.transport
        unsent = transport.get_write_buffer_size()
        if (
            unsent
        ):  # the kernel holds up to 4 MB more, and takes more only after the client has read a third of it
            unsent += self._kept_by_kernel()
        if unsent != self._unsent or not unsent:
            self._unsent, self._unsent_since = unsent, now
        elif now - self._unsent_since >= self.limits.patience_seconds:
            self.reset()  # otherwise an answer that was cut would look whole
            return
        due = now + min(patience, self.timeout_keep_alive)
        if self._is_reading:
            if self._in_content and self._is_at_rest() and self._idle_since + patience <= now:
                self.linger()
                return
            share = self.limits.min_bytes_per_second * patience
            has_share = self._in_content and (
                self.cycle.waiting_for_100_continue or self._read - self._read_then >= share
            )
            if self.flow.was_paused or has_share:  # the client is not to blame, or has sent its share
                self._wait()
            elif self._since + patience <= now:
                self._refuse(LATE)
                return
            due = min(due, self._since + patience)
        elif not unsent and self._is_at_rest():
            due = self._idle_since + self.timeout_keep_alive
            if due <= now:
                transport.close()
                return
        self._watch = self.loop.call_at(due, self._look)

    def _kept_by_kernel(self) -> int:
        """Return the bytes in the kernel that the client has not acknowledged."""
        kept: int = struct.unpack("i", ioctl(self._socket, TIOCOUTQ, bytes(4)))[0]
        return kept

    def _is_at_rest(self) -> bool:
        """Whether every request has its answer."""
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is None or cycle.response_complete

    # --- Refusals -------------------------------------------------------------------------------------

    def _stop(self, reason: Refusal) -> NoReturn:
        """Stop the parser. `_reason` keeps the reason: the parser loses an error if another is being handled."""
        self._reason = reason
        raise Stop

    def _refuse(self, refused: Refusal) -> None:
        """Read no more, and answer with a problem, after the answers to earlier requests."""
        problems.count(refused.code)
        body = problems.encode(refused.status, refused.code, refused.detail)
        seconds = self.loop.time() - self._since if self._read else 0.0
        known = self.cycle.scope["headers"] if self._in_content else self.headers or []
        own = hit_block(request_id.of(known), seconds, stages=False)
        fields = [
            *self.server_state.default_headers,
            (b"content-type", b"application/problem+json"),
            (b"cache-control", b"no-store"),
            (b"content-length", b"%d" % len(body)),
            (b"connection", b"close"),
            *front_of(self.app).defaults[self.scheme or "http"].fields,
        ]
        lines = (b"%b: %b\r\n" % field for field in fields)
        if self._in_content:  # perhaps read by another parser than the head: see `_ignore_upgrade`
            is_head = self.cycle.scope["method"] == "HEAD"
        else:
            is_head = self._is_reading and self.url != b"" and self.parser.get_method() == b"HEAD"
        content = b"" if is_head else body
        answer = b"".join((STATUS_LINE[refused.status], *lines, own, b"\r\n", content))
        if self._in_content:  # the application has this request, or would get it after others
            cycle = self.cycle
            cycle.scope["state"][REFUSED] = refused.status
            if self.pipeline:
                self._count_undispatched(refused)
                self.pipeline.popleft()
                self.cycle = self.pipeline[0][0] if self.pipeline else self._running  # type: ignore[assignment]
            if cycle.response_started:
                answer = b""
            cycle.disconnected = cycle.response_complete = True
            cycle.waiting_for_100_continue = False  # uvicorn would write `100 Continue` behind the end
            cycle.message_event.set()
        else:
            self._count_undispatched(refused)
        self._stop_reading()
        if self._is_at_rest():
            self._leave(answer)
        else:
            self._refusal = answer

    @staticmethod
    def _count_undispatched(refused: Refusal) -> None:
        """Count a request that no application gets."""
        request_stats.durations(request_stats.route(UNMATCHED), "")[refused.status].observe(0.0)

    def reset(self) -> None:
        """Reset the connection, so that the client gets an error."""
        if self not in self.connections:  # it has ended: another connection may have the number of its socket
            return
        with socket(fileno=os.dup(self._socket)) as connection:
            connection.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    def is_amid_content(self) -> bool:
        """Whether the end of a request's content is still to come."""
        return self._is_reading and self._in_content

    def linger(self) -> None:
        """Close after the client has closed, or after a while. Further bytes and waiting requests are dropped."""
        self._stop_reading()
        self.pipeline.clear()
        self.cycle = self._running  # type: ignore[assignment]
        self._leave(b"")

    def _stop_reading(self) -> None:
        """Drop all bytes that are not parsed yet, and all that come."""
        self._is_reading, self.parser, self.flow.unread = False, DISCARD, b""

    def _leave(self, answer: bytes) -> None:
        """Write the answer and the end, and wait for the client to close."""
        transport = self.transport
        if transport.is_closing():
            return
        transport.write(answer)
        if transport.can_write_eof():
            transport.write_eof()
        self.flow.resume_reading()
        self._watch.cancel()
        self._watch = self.loop.call_later(self.limits.linger_seconds, self._end)

    def _end(self) -> None:
        """Abort, unless the client is still reading the answer."""
        unsent = self.transport.get_write_buffer_size() + self._kept_by_kernel()
        if unsent and unsent != self._unsent:
            self._unsent = unsent
            self._watch = self.loop.call_later(self.limits.patience_seconds, self._end)
        elif unsent:
            self.reset()  # as in `_look`
        else:
            self.transport.abort()
