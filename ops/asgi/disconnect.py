"""Cancels a request whose client has left, at no cost to one that is answered within milliseconds."""

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self, cast
from weakref import WeakKeyDictionary

from django.core.exceptions import RequestAborted

from ops.asgi.protocol import Receive

# Seconds until a request, after one to two of these, gets a second task that listens to its client. An answer
# within the latency budget should never need it, and a view that is cancelled this late has wasted little.
PATIENCE = 0.005


class DisconnectWatch:
    """A context manager that leaves its block, silently, when the client has left.

    The block runs in the server's own task, so it is that task which is cancelled. A cancellation from elsewhere
    (a deadline, the server's shutdown) passes through.
    """

    def __init__(self, listen: Callable[[Receive], Awaitable[None]], receive: Receive) -> None:
        """`listen` raises RequestAborted once `receive` has told that the client left."""
        self._listen, self._receive = listen, receive
        self._listener: asyncio.Task[None] | None = None
        self._cancelled = False
        self._failure: Exception | None = None

    def __enter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._task = cast("asyncio.Task[object]", asyncio.current_task(loop))
        self._rounds = _rounds.get(loop) or _rounds.setdefault(loop, Rounds())
        self._rounds.join(self)
        return self

    def start(self) -> None:
        """Listen from now on: called by the rounds, or at once for what is known to take its time."""
        if self._listener is None:
            self._listener = asyncio.create_task(self._cancel_on_disconnect())

    async def _cancel_on_disconnect(self) -> None:
        try:
            await self._listen(self._receive)
        except RequestAborted:
            pass
        except Exception as error:  # noqa: BLE001  it belongs to the request, which raises it
            self._failure = error
        self._cancelled = True
        self._task.cancel()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self._rounds.leave(self)
        if self._listener is None:
            return False
        self._listener.cancel()
        if not self._cancelled:
            return False
        others = self._task.uncancel()
        if self._failure:
            raise self._failure
        return kind is asyncio.CancelledError and not others


class Rounds:
    """Starts the watches of an event loop that have lasted a whole round.

    One timer for all of them: a timer of its own, started and cancelled, costs a request 10 us under uvloop.
    """

    def __init__(self) -> None:
        self._old: set[DisconnectWatch] = set()
        self._new: set[DisconnectWatch] = set()
        self._timer: asyncio.TimerHandle | None = None

    def join(self, watch: DisconnectWatch) -> None:
        self._new.add(watch)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(PATIENCE, self._next)

    def leave(self, watch: DisconnectWatch) -> None:
        self._new.discard(watch)
        self._old.discard(watch)

    def _next(self) -> None:
        self._timer = None
        for watch in self._old:
            watch.start()
        self._old, self._new = self._new, set()
        if self._old:
            self._timer = asyncio.get_running_loop().call_later(PATIENCE, self._next)


_rounds: WeakKeyDictionary[asyncio.AbstractEventLoop, Rounds] = WeakKeyDictionary()
