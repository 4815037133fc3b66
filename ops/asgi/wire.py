"""The wire cache: ready answers written to the socket where the request is parsed, before it becomes an ASGI task.

An accelerator of whoever fills `ready`, and nothing more: it answers a plain GET or HEAD of a target that is in
there, exactly as the ASGI application would, and leaves whatever is unusual to that application. An entry says itself
how long it may be sent.
"""

import time
from collections.abc import Callable
from typing import Protocol

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from ops.asgi.hosts import are_allowed

Fields = list[tuple[bytes, bytes]]


class Representation:
    """One answer: as fields and body, and as the bytes of HTTP/1.1 that uvicorn would write for them."""

    __slots__ = ("_head", "_stamp", "body", "etag", "fields", "not_modified", "status", "told", "whole")

    def __init__(
        self, status: int, fields: Fields, body: bytes, etag: bytes, told: Callable[[], Fields]
    ) -> None:
        """`told` gives the fields that change with time, once a second at most."""
        self.status, self.fields, self.body, self.etag, self.told = status, fields, body, etag, told
        self.not_modified: Representation | None = None  # in its place for who has it already
        self._stamp: Fields | None = None
        self._head = self.whole = b""

    def write(self, defaults: Fields, *, head_only: bool) -> bytes:
        """The bytes, after the server's `defaults`: a list that is replaced each second, with the date in it."""
        if self._stamp is not defaults:
            fields = b"".join([b"%b: %b\r\n" % field for field in (*defaults, *self.fields, *self.told())])
            self._head = b"%b%b\r\n" % (STATUS_LINE[self.status], fields)
            self.whole = self._head + self.body
            self._stamp = defaults
        return self._head if head_only else self.whole


class Ready(Protocol):
    """An entry of the wire cache."""

    calm_until: float  # on the monotonic clock: until then it may be sent without a thought

    def answer(self, fields: Fields) -> Representation | None:
        """What to answer to a GET with these header fields, which is then counted; None if that takes more."""


# By request target, as it comes. Whoever owns the entries fills and empties it.
ready: dict[bytes, Ready] = {}


class WireProtocol(HttpToolsProtocol):
    """uvicorn's protocol, which first looks whether the answer is there already."""

    _answered = False  # whether the request that is being read has its answer

    def on_headers_complete(self) -> None:
        entry = ready.get(self.url)
        if entry is not None and time.monotonic() < entry.calm_until and self._is_plain():
            answer = entry.answer(self.headers)
            if answer is not None:
                self._write(answer)
                return
        self._unset_keepalive_if_required()  # a pipelined request may come after an answer from here
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        if self._answered:
            self._answered = False
        else:
            super().on_message_complete()

    def _is_plain(self) -> bool:
        """Whether it is a request that uvicorn would give to the application at once, and keep the connection."""
        parser = self.parser
        return (
            parser.get_method() in (b"GET", b"HEAD")
            and parser.get_http_version() == "1.1"
            and parser.should_keep_alive()
            and not parser.should_upgrade()
            and not self._is_behind()
            and not self.flow.write_paused  # else the client does not read, and uvicorn waits for it
            and are_allowed(self.headers)
        )

    def _is_behind(self) -> bool:
        """Whether another request of this connection still waits for its answer."""
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is not None and not cycle.response_complete

    def _write(self, answer: Representation) -> None:
        defaults = self.server_state.default_headers
        self.transport.write(answer.write(defaults, head_only=self.parser.get_method() == b"HEAD"))
        self._answered = True
        self.server_state.total_requests += 1
        self._unset_keepalive_if_required()
        self.timeout_keep_alive_task = self.loop.call_later(
            self.timeout_keep_alive, self.timeout_keep_alive_handler
        )
