"""The wire cache: ready answers written to the socket where the request is parsed, before it becomes an ASGI task.

An accelerator of whoever fills `ready`, and nothing more: it answers a plain GET or HEAD of a target that is in
there, exactly as the ASGI application would, and leaves whatever is unusual to that application. An entry says itself
how long it may be sent.
"""

from asyncio import TimerHandle
from collections.abc import Callable
from time import monotonic, perf_counter
from typing import Protocol

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from ops.asgi.hosts import are_allowed
from ops.asgi.pipelining import PipeliningProtocol
from ops.asgi.protocol import Fields
from ops.instruments import request_id, requests
from ops.instruments.headers import hit_block

LONGEST = 4096  # bytes of a request that is remembered until the next one of its connection


class Representation:
    """One answer: as fields and body, and as the bytes of HTTP/1.1 that uvicorn would write for them."""

    __slots__ = ("_head", "_stamp", "body", "etag", "fields", "not_modified", "status", "told")

    def __init__(
        self, status: int, fields: Fields, body: bytes, etag: bytes, told: Callable[[], Fields]
    ) -> None:
        """`told` gives the fields that change with time, once a second at most."""
        self.status, self.fields, self.body, self.etag, self.told = status, fields, body, etag, told
        self.not_modified: Representation | None = None  # in its place for who has it already
        self._stamp: Fields | None = None
        self._head = b""

    def write(self, defaults: Fields, own: bytes, *, head_only: bool) -> bytes:
        """The bytes, with `own`, the lines of a single request.

        `defaults` are the server's fields, a list that is replaced each second, with the date in it.
        """
        if self._stamp is not defaults:
            fields = [b"%b: %b\r\n" % field for field in (*defaults, *self.fields, *self.told())]
            self._head = b"".join((STATUS_LINE[self.status], *fields))
            self._stamp = defaults
        return b"".join((self._head, own, b"\r\n", b"" if head_only else self.body))


class Ready(Protocol):
    """An entry of the wire cache."""

    calm_until: float  # on the monotonic clock: until then it may be sent without a thought

    @property
    def route(self) -> str:
        """The URL pattern that it is filed under."""

    def answer(self, fields: Fields) -> Representation | None:
        """What to answer to a GET with these header fields, which is then counted; None if that takes more."""


# By request target, as it comes. Whoever owns the entries fills and empties it.
ready: dict[bytes, Ready] = {}


class WireProtocol(PipeliningProtocol):
    """uvicorn's protocol, which first looks whether the answer is there already."""

    _segment = b""  # what has arrived, if it may turn out to be one plain request
    _known = b""  # what has turned out to be, if nothing else has come since
    _began = 0.0  # when the request that is being read did
    _is_reading = False  # whether the end of a request is still to come
    _is_answered = False  # whether the request that is being read has its answer
    _idle_since: float | None = None  # when the wire gave the last answer, while nothing has come since
    _idle_watch: TimerHandle | None = None

    def data_received(self, data: bytes) -> None:
        """Read a request, unless it is the one before once more: the parser would say the same."""
        if data == self._known:
            self._began = perf_counter()
            if self._answer():
                return
        self._segment = data if len(data) <= LONGEST and not self._is_reading else b""
        super().data_received(data)

    # --- The parser's calls -----------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """Uvicorn's, without the scope, which the wire does not need: 0.3 us."""
        self.url, self.headers, self.expect_100_continue = b"", [], False
        self._is_reading, self._known, self._began = True, b"", perf_counter()

    def on_headers_complete(self) -> None:
        if self.url in ready and self._is_plain() and self._answer():
            self._is_answered = True
            self._known, self._segment = self._segment, b""
        else:
            self._unset_keepalive_if_required()  # a wire answer may have gone before, in the same segment
            self._give_to_uvicorn()

    def on_message_complete(self) -> None:
        self._is_reading = False
        if self._is_answered:
            self._is_answered = False
        else:
            super().on_message_complete()

    # --- The wire ---------------------------------------------------------------------------------

    def _is_plain(self) -> bool:
        """Whether it is a request that uvicorn would give to the application, and keep the connection."""
        parser = self.parser
        return (
            parser.get_method() in (b"GET", b"HEAD")
            and parser.get_http_version() == "1.1"
            and parser.should_keep_alive()
            and not parser.should_upgrade()
            and are_allowed(self.headers)
        )

    def _answer(self) -> bool:
        """Answer the plain request that was read last, if that can be done without a thought."""
        entry = ready.get(self.url)
        if entry is None or monotonic() >= entry.calm_until or self._is_busy():
            return False
        answer = entry.answer(self.headers)
        if answer is None:
            return False
        method = self.parser.get_method()
        seconds = perf_counter() - self._began
        own = hit_block(request_id.of(self.headers), seconds)
        defaults = self.server_state.default_headers
        self.transport.write(answer.write(defaults, own, head_only=method == b"HEAD"))
        requests.record(
            requests.answers(requests.route(entry.route), method.decode()), answer.status, seconds
        )
        self.server_state.total_requests += 1
        self._idle_since = self.loop.time()
        if self._idle_watch is None:
            self._watch_idleness(self.timeout_keep_alive)
        return True

    def _is_busy(self) -> bool:
        """Whether another request of this connection still waits for its answer, or the client does not read."""
        cycle: RequestResponseCycle | None = self.cycle
        return self.flow.write_paused or (cycle is not None and not cycle.response_complete)

    def _give_to_uvicorn(self) -> None:
        url, headers, expects = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.headers, self.expect_100_continue = url, headers, expects
        self.scope["headers"] = headers
        super().on_headers_complete()

    # --- Keep-alive: one timer for many answers, where a timer for each costs 0.3 us -----------------

    def _watch_idleness(self, seconds: float) -> None:
        self._idle_watch = self.loop.call_later(seconds, self._look_whether_idle)

    def _look_whether_idle(self) -> None:
        self._idle_watch = None
        if self._idle_since is None:  # uvicorn has its own timer for what it has answered
            return
        left = self._idle_since + self.timeout_keep_alive - self.loop.time()
        if left > 0:
            self._watch_idleness(left)
        else:
            self.timeout_keep_alive_handler()

    def _unset_keepalive_if_required(self) -> None:
        self._idle_since = None
        super()._unset_keepalive_if_required()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._unset_keepalive_if_required()  # which uvicorn omits if the client has reset the connection
        if self._idle_watch:
            self._idle_watch.cancel()
