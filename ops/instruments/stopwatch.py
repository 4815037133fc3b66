"""Where the time of a request goes, measured where it goes.

    with DB:
        answer = await connection.execute(statement)

A stopwatch tiles the time of its request: at each moment exactly one stage runs, the one entered last and not yet
left, so the stages add up to the whole. It is reached through a context variable, which follows a request into its
tasks and threads; outside a request, entering a stage does nothing. A stage costs 0.4 us
(docs/decisions/0012-telemetry.md).
"""

from contextvars import ContextVar
from time import perf_counter
from types import TracebackType


class Stage:
    """A context manager for what belongs to a stage; one object serves all requests at once."""

    __slots__ = ("index", "name")

    def __init__(self, index: int, name: str) -> None:
        self.index, self.name = index, name

    def __enter__(self) -> None:
        watch = current.get()
        if watch is not None:
            now = perf_counter()
            watch.seconds[watch.active[-1]] += now - watch.since
            watch.since = now
            watch.active.append(self.index)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stages that run side by side, in tasks, may be left in any order."""
        watch = current.get()
        if watch is not None:
            now = perf_counter()
            watch.seconds[watch.active[-1]] += now - watch.since
            watch.since = now
            watch.active.remove(self.index)


STAGES = MIDDLEWARE, AUTH, DB, SERIALISATION, RESPONSE, CACHE, QUEUE = tuple(
    Stage(index, name)
    for index, name in enumerate(
        # What no other stage claims is middleware's, until the view has returned; then it is the response's.
        # An authenticator enters `auth`, whoever waits for a connection of a pool `queue`.
        ("middleware", "auth", "db", "serialisation", "response", "cache", "queue")
    )
)
UNMATCHED = "unmatched"  # the route of a request that no URL pattern is for


class Stopwatch:
    """The times of one request in seconds, by the index of their stage, and what they are filed under."""

    __slots__ = ("active", "code", "request_id", "route", "seconds", "since", "started")

    def __init__(self, request_id: bytes) -> None:
        self.request_id = request_id
        self.route = UNMATCHED
        self.code = ""  # of the problem that was the answer
        self.seconds = [0.0] * len(STAGES)
        self.active = [MIDDLEWARE.index]
        self.started = self.since = perf_counter()

    def respond(self) -> float:
        """The view has returned: what no other stage claims is the response's from now on. May be called again.

        Returns the seconds until now.
        """
        total = self.lap()
        self.active[0] = RESPONSE.index
        return total

    def rebase(self, stage: Stage) -> None:
        """What no other stage claims is this one's from now on."""
        self.lap()
        self.active[0] = stage.index

    def claim(self, stage: Stage) -> None:
        """As `rebase`, and what no stage has had yet is this one's, too: the little that leads to it."""
        self.active[0] = stage.index

    def lap(self) -> float:
        """Bring `seconds` up to now; returns their sum."""
        now = perf_counter()
        self.seconds[self.active[-1]] += now - self.since
        self.since = now
        return now - self.started


current: ContextVar[Stopwatch | None] = ContextVar("stopwatch", default=None)


def respond() -> None:
    if watch := current.get():
        watch.respond()
