"""Where the time of a request goes, measured in the code that takes it.

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
    """A context manager for the time of a stage; one object serves all requests at once."""

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
        """Leave the stage. Stages that run at once, in tasks, may be left in any order."""
        watch = current.get()
        if watch is not None:
            now = perf_counter()
            watch.seconds[watch.active[-1]] += now - watch.since
            watch.since = now
            watch.active.remove(self.index)

    def take_from(self, other: "Stage", since: float, until: float) -> None:
        """Move the time between two moments of perf_counter from another stage to this one.

        Waits at the same time, such as those of the queries of a `gather`, are moved only once.
        """
        watch = current.get()
        if watch is not None:
            seconds = min(max(0.0, until - max(since, watch.taken_until)), watch.seconds[other.index])
            watch.taken_until = max(until, watch.taken_until)
            watch.seconds[other.index] -= seconds
            watch.seconds[self.index] += seconds


STAGES = MIDDLEWARE, AUTH, DB, SERIALISATION, RESPONSE, CACHE, QUEUE, UPSTREAM = tuple(
    Stage(index, name)
    for index, name in enumerate(
        # Time that no other stage claims is middleware's, until the view has returned; then it is the response's.
        # `auth` is the time of an authenticator, `queue` the wait for a connection of a pool, `upstream` a call of
        # another service.
        ("middleware", "auth", "db", "serialisation", "response", "cache", "queue", "upstream")
    )
)
UNMATCHED = "unmatched"  # the route of a request that matches no URL pattern


class Stopwatch:
    """The times of one request in seconds, by the index of their stage, with its route and problem."""

    __slots__ = ("active", "code", "request_id", "route", "seconds", "since", "started", "taken_until")

    def __init__(self, request_id: bytes) -> None:
        self.request_id = request_id
        self.route = UNMATCHED
        self.code = ""  # of the problem that was the answer
        self.seconds = [0.0] * len(STAGES)
        self.active = [MIDDLEWARE.index]
        self.started = self.since = self.taken_until = perf_counter()

    def respond(self) -> float:
        """Count time that no other stage claims as the response's from now on, since the view has returned.

        Returns the seconds until now. May be called again.
        """
        total = self.lap()
        self.active[0] = RESPONSE.index
        return total

    def rebase(self, stage: Stage) -> None:
        """Count time that no other stage claims as this one's from now on."""
        self.lap()
        self.active[0] = stage.index

    def claim(self, stage: Stage) -> None:
        """As `rebase`, but already from the moment at which a stage was last entered or left."""
        self.active[0] = stage.index

    def finish(self) -> None:
        """Record the request: its answer is out, even if more is done for it. The telemetry layer overrides this."""

    @property
    def method(self) -> str:
        """The method of the request. The telemetry layer overrides this."""
        return ""

    def passed_on(self) -> list[tuple[str, str]]:
        """Return the header fields that name this request to another service. The telemetry layer adds the trace."""
        return [("X-Request-ID", self.request_id.decode())]

    def lap(self) -> float:
        """Bring `seconds` up to now; return their sum."""
        now = perf_counter()
        self.seconds[self.active[-1]] += now - self.since
        self.since = now
        return now - self.started


current: ContextVar[Stopwatch | None] = ContextVar("stopwatch", default=None)


def respond() -> None:
    if watch := current.get():
        watch.respond()
