"""The wire cache: ready answers written to the socket where the request is parsed, before it becomes an ASGI task.

It is an accelerator of the page cache, which fills `ready`: it answers a plain GET or HEAD of a target in `ready`,
exactly as the ASGI application would, and leaves everything unusual to that application. The layers in front of the
page cache declare their effect on such an answer (ops/asgi/hits.py); an entry declares until when it may be sent.
Requests that are too many for the worker are refused here, too (ops/asgi/admission.py).
"""

import logging
from asyncio import Transport
from collections.abc import Callable, Sequence
from time import monotonic, perf_counter
from typing import Any, Protocol

from django.conf import settings
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from ops.asgi import problems, routes
from ops.asgi.admission import RETRY_AFTER, admission
from ops.asgi.answering import NONE, Defaults
from ops.asgi.hits import Hit, front_of
from ops.asgi.probes import PROBES
from ops.asgi.types import Fields
from ops.gunicorn.edge import FAILED, FRAMES, EdgeProtocol
from ops.telemetry import request_id, request_stats
from ops.telemetry.headers import hit_block
from ops.telemetry.readiness import readiness

logger = logging.getLogger("ops.edge")

MAX_EARLIER_PIECES_BYTES = 4096  # of a head, before its last piece; a longer head is left to the edge
MAX_REMEMBERED_BYTES = 4096  # of a hit that is compared with the next request of its connection


class Representation:
    """One answer: as fields and body, and as the bytes of HTTP/1.1 that uvicorn would write for them."""

    __slots__ = (
        "_end", "_head", "_lacking", "_stamp",
        "body", "changing", "etag", "fields", "not_modified", "status",
    )  # fmt: skip

    def __init__(
        self, status: int, fields: Fields, body: bytes, etag: bytes, changing: Callable[[], Fields]
    ) -> None:
        """`changing` returns the fields that depend on the time; it is called once a second at most."""
        self.status, self.fields, self.body, self.etag, self.changing = status, fields, body, etag, changing
        self.not_modified: Representation | None = None  # the 304 for a client that has this one
        self._stamp: Fields | None = None
        self._lacking: Fields = []
        self._head = self._end = b""

    def write(self, of_server: Fields, own: bytes, defaults: Defaults = NONE, *, head_only: bool) -> bytes:
        """Return the bytes of the answer to one request, with `own`, the lines for that request alone.

        `of_server` are the server's fields, a list that uvicorn replaces each second, since it has the date.
        `defaults` are the application's, and have to be the same in each call.
        """
        if self._stamp is not of_server:
            fields = [b"%b: %b\r\n" % field for field in (*of_server, *self.fields, *self.changing())]
            self._head = b"".join((STATUS_LINE[self.status], *fields))
            self._lacking = defaults.of(self.status).missing(self.fields)
            self._end = Defaults(self._lacking).lines + b"\r\n"
            self._stamp = of_server
        end = self._end
        if defaults.may_be_present:  # then `own` may have such fields
            lines = b"\r\n" + own.lower()
            lacking = [field for field in self._lacking if b"\r\n%b:" % field[0] not in lines]
            end = Defaults(lacking).lines + b"\r\n"
        return b"".join((self._head, own, end, b"" if head_only else self.body))


def _refusal() -> Representation:
    body = problems.encode(503, "overloaded", problems.OVERLOADED)
    fields = [
        (b"content-type", problems.CONTENT_TYPE.encode()),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", b"no-store"),
        RETRY_AFTER,
    ]
    return Representation(503, fields, body, b"", list)


REFUSALS = {scheme: _refusal() for scheme in ("http", "https")}  # each keeps the default lines of its scheme
PROBE_PATHS = tuple(path.encode() for path in PROBES)


class Ready(Protocol):
    """An entry of the wire cache."""

    scheme: str  # of the requests that it answers
    trusted_until: float  # on the monotonic clock: until then it may be sent without a check

    @property
    def route(self) -> str:
        """The URL pattern that it is filed under."""

    def select_ready(self, fields: Fields) -> Representation | None:
        """Return the representation for a GET with these header fields, and count it; None if none is ready."""


# Entries by request target, as clients send it. The page cache fills and empties it.
ready: dict[bytes, Ready] = {}
recent: dict[bytes, None] = {}  # targets that `ready` has or had lately, the newest last


class WireProtocol(EdgeProtocol):
    """uvicorn's protocol, which looks for a ready answer first. The states of a connection: ops/gunicorn/edge.py."""

    _segment = b""  # the bytes of the current segment, as long as they may be exactly one request
    _known = b""  # the last segment, if it was exactly one hit: an equal segment skips the parser
    _began = 0.0  # when the request that is being read began
    _is_answered = False  # whether the request that is being read has its answer

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._front = front_of(self.app)
        self._hit = Hit()

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]  # as in uvicorn's
        super().connection_made(transport)
        self._hit.client = self.client

    def data_received(self, data: bytes) -> None:
        """Answer a segment that equals the last hit without the parser, which would say the same; read any other."""
        if data == self._known:
            self._hit.began = perf_counter()
            try:
                if self._send_hit(self._front.admits_again):
                    return
            except Exception:
                logger.exception("what a layer does to a hit failed")
                self._is_reading = (
                    True  # `_refuse` needs the method: the parser has that of the request before
                )
                self._refuse(FAILED)
                return
        self._segment = data if len(data) <= MAX_REMEMBERED_BYTES and not self._is_reading else b""
        super().data_received(data)

    def _stop_reading(self) -> None:
        super()._stop_reading()
        self._known = b""

    # --- The parser's calls -----------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """As uvicorn's, without the scope, which the wire does not need and which takes 0.3 us."""
        self.url, self.headers, self.expect_100_continue = b"", [], False
        self._is_reading, self._read, self._known, self._began = True, 0, b"", perf_counter()

    def on_headers_complete(self) -> None:
        is_known = self.url in self._front.ready
        if is_known and self._is_plain() and self._send_hit(self._front.admits):
            self._is_answered = True
            self._known, self._segment = self._segment, b""
        elif not is_known and self.url not in recent and self._refuse_for_now():
            # A later request is not the only one of this segment.
            self._is_answered, self._segment = True, b""
        else:
            # Uvicorn's on_message_begin, which was skipped, clears these three.
            url, headers, expects = self.url, self.headers, self.expect_100_continue
            super().on_message_begin()
            self.url, self.headers, self.expect_100_continue = url, headers, expects
            self.scope["headers"] = headers
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._is_reading = False
        if self._is_answered:
            self._is_answered = False
        else:
            super().on_message_complete()

    # --- The wire ---------------------------------------------------------------------------------

    def _is_plain(self) -> bool:
        """Whether uvicorn would give this GET or HEAD to the application, and keep the connection. Fills `_hit`."""
        parser = self.parser
        method = parser.get_method()
        if (
            method not in (b"GET", b"HEAD")
            or parser.get_http_version() != "1.1"
            or not parser.should_keep_alive()
            or parser.should_upgrade()
            or self._read > MAX_EARLIER_PIECES_BYTES  # a head that came in many pieces may be too large
            or len(self.headers) > self.limits.max_fields
        ):
            return False
        hit = self._hit
        hit.method, hit.target, hit.headers = method.decode(), self.url, self.headers
        hit.scheme, hit.head_only, hit.began = self.scheme or "http", False, self._began
        return True

    def _send_hit(self, admits: Sequence[Callable[[Hit], bool]]) -> bool:
        """Answer the plain request in `_hit` if the layers admit it and its entry may be sent; whether it was so."""
        front, hit = self._front, self._hit
        entry = front.ready.get(hit.target)
        if entry is None or monotonic() >= entry.trusted_until or readiness.draining:
            return False  # while the server drains, uvicorn says that the connection ends
        if self.flow.write_paused or not self._is_at_rest():
            return False  # the client does not read, or another request still waits for its answer
        for admit in admits:
            if not admit(hit):
                return False
        # The entry is for the other scheme, or the request is a HEAD and no layer takes the content away.
        if entry.scheme != hit.scheme or (hit.method == "HEAD" and not hit.head_only):
            return False
        representation = entry.select_ready(hit.headers)
        if representation is None:
            return False
        hit.route, hit.status = entry.route, representation.status
        self._write(representation, front.fields(hit))
        try:
            front.sent(hit)
        except Exception:
            logger.exception("what a layer does after a hit failed")
        return True

    def _refuse_for_now(self) -> bool:
        """Refuse a plain request that is one too many (ops/asgi/admission.py); whether it was refused."""
        if (
            admission.find_place()
            or self._front.undeclared  # a layer that does not declare its fields
            or not self._is_plain()
            or any(name in FRAMES for name, _ in self.headers)  # content, which would have to be read
            or self.url.partition(b"?")[0].endswith(PROBE_PATHS)
            or readiness.draining
            or self.flow.write_paused
            or not self._is_at_rest()
            or not all(admit(self._hit) for admit in self._front.admits)
        ):
            return False
        admission.count_refusal()
        front, hit = self._front, self._hit
        path = self.url.partition(b"?")[0].decode("latin-1").removeprefix(settings.ROOT_PATH)
        hit.route, hit.status, hit.seconds = routes.route_of(path), 503, perf_counter() - hit.began
        own = front.fields(hit) or hit_block(request_id.of(hit.headers), hit.seconds, stages=False)
        self._write(REFUSALS[hit.scheme], own)
        problems.count("overloaded")
        stats = request_stats.durations(request_stats.route(hit.route), hit.method)
        stats[503].observe(hit.seconds)
        return True

    def _write(self, representation: Representation, own: bytes) -> None:
        """Answer the plain request in `_hit`. `own` are the lines for this answer alone."""
        of_server, defaults = self.server_state.default_headers, self._front.defaults[self._hit.scheme]
        is_head = self._hit.method == "HEAD"
        self.transport.write(representation.write(of_server, own, defaults, head_only=is_head))
        self.server_state.total_requests += 1
        self._idle_since = self.loop.time()
