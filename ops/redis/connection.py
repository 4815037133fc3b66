"""One connection to Redis for all requests of a worker: replies come in the order of their commands.

redis-py opens it: address, TLS, name, password and database. From then on hiredis writes the commands and reads the
replies, without redis-py: a round trip takes a seventh of the processor time, and the commands of one turn of the
event loop go out in one write (docs/decisions/0034-one-redis-connection.md).
"""

import asyncio
import math
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, cast

import hiredis
from redis._parsers.base import BaseParser
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as Unwell
from redis.exceptions import InvalidResponse, RedisError
from redis.exceptions import TimeoutError as Late

# Deadlines are counted in turns of the event loop, which take this many seconds each at least. So the delays of a
# worker that is busy or has no processor are not blamed on Redis: when the loop was blocked for 80 ms after a command
# was sent, a plain timeout of 50 ms failed 7 of 20 commands although their replies had come in time.
TURN_SECONDS = 0.005
STUCK_SECONDS = 0.25  # after the deadline of a command without a reply, until the connection is ended
MAX_CALLS = 1000  # that may wait for replies
MAX_UNSENT_BYTES = 8 * 1024 * 1024

Command = tuple[str | bytes | int, ...]
OnLost = Callable[["Connection", Exception], None]
NOTHING = object()  # from hiredis: the next reply is not complete yet


class Full(Exception):
    """Too much is under way on the connection: nothing was sent. That is no failure of Redis."""


class Lost(Exception):
    """The connection has ended; `on_lost` gets the reason."""


class Call:
    """Commands that were sent together, and the replies that have come."""

    __slots__ = ("due", "left", "replied", "replies")

    def __init__(self, size: int, due: int, replied: "asyncio.Future[list[Any]]") -> None:
        self.due = due  # the turn of the connection in which it is too late
        self.left = size  # replies that have not come
        self.replies: list[Any] = []
        self.replied = replied


class Connection(asyncio.Protocol):
    """Belongs to one event loop. Once lost, it stays lost."""

    def __init__(self, writer: asyncio.StreamWriter, on_lost: OnLost) -> None:
        self.is_lost = False
        self._writer = writer  # kept: a writer that is collected closes its transport
        self._transport, self._on_lost = writer.transport, on_lost
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader(
            protocolError=InvalidResponse, replyError=_to_error, notEnoughData=NOTHING
        )
        self._calls: deque[Call] = deque()
        self._turn = 0
        self._next_turn: asyncio.TimerHandle | None = None  # while there are calls
        self._transport.set_protocol(self)

    def send(self, commands: Sequence[Command], seconds: float) -> "asyncio.Future[list[Any]]":
        """Send commands, and return a future of their replies, with an exception for an error reply. Raises Full.

        The future raises Late if there are no replies within `seconds`, Unwell if Redis says that it cannot answer,
        and Lost. A caller may cancel the future: the replies are then read and dropped.
        """
        if len(self._calls) >= MAX_CALLS or self._transport.get_write_buffer_size() > MAX_UNSENT_BYTES:
            raise Full("Redis has more commands than it answers")
        replied: asyncio.Future[list[Any]] = self._loop.create_future()
        if self.is_lost:
            replied.set_exception(Lost("the connection is lost"))
            return replied
        self._transport.write(b"".join([_pack(command) for command in commands]))
        self._calls.append(Call(len(commands), self._turn + math.ceil(seconds / TURN_SECONDS) + 1, replied))
        if not self._next_turn:
            self._next_turn = self._loop.call_later(TURN_SECONDS, self._take_turn)
        return replied

    def fail(self, error: Exception) -> None:
        """End the connection. Calls that wait on it raise Lost, and `on_lost` gets the error."""
        if self.is_lost:
            return
        self.is_lost = True
        self._transport.abort()
        if self._next_turn:
            self._next_turn.cancel()
        for call in self._calls:
            if not call.replied.done():
                call.replied.set_exception(Lost(str(error)))
        self._calls.clear()
        self._on_lost(self, error)

    # --- Called by the transport ------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        try:
            while (reply := self._reader.gets()) is not NOTHING:
                self._take(reply)
        except (RedisError, IndexError) as error:  # not a reply, or a reply to no command
            self.fail(InvalidResponse(f"Redis answers what is no answer: {error}"))

    def connection_lost(self, exc: Exception | None) -> None:
        self.fail(Unwell(f"the connection is lost: {exc or 'closed by Redis'}"))

    # --- Steps ------------------------------------------------------------------------------------

    def _take(self, reply: Any) -> None:
        call = self._calls[0]
        call.replies.append(reply)
        call.left -= 1
        if call.left:
            return
        self._calls.popleft()
        if call.replied.done():  # cancelled, or too late
            return
        unwell = next((each for each in call.replies if isinstance(each, Unwell)), None)  # it is loading
        if unwell:
            call.replied.set_exception(unwell)
        else:
            call.replied.set_result(call.replies)

    def _take_turn(self) -> None:
        """Fail the calls that are too late, and the connection if the first of them stays without a reply."""
        self._next_turn = None
        self._turn += 1
        for call in self._calls:
            if call.due <= self._turn and not call.replied.done():
                call.replied.set_exception(Late("Redis has not answered in time"))
        if not self._calls:
            return
        if self._turn > self._calls[0].due + STUCK_SECONDS / TURN_SECONDS:
            self.fail(Late("Redis does not answer"))
        else:
            self._next_turn = self._loop.call_later(TURN_SECONDS, self._take_turn)


def take_over(opened: AbstractConnection, on_lost: OnLost) -> Connection:
    """Take the socket of a connection that redis-py has opened, and leave redis-py without it."""
    source = cast("Any", opened)  # without types
    writer, source._writer, source._reader = source._writer, None, None  # noqa: SLF001  it has no public way
    return Connection(writer, on_lost)


_pack = cast("Callable[[Command], bytes]", hiredis.pack_command)  # its type takes one value
_to_error = cast("Callable[[str], Exception]", BaseParser.parse_error)  # without types
