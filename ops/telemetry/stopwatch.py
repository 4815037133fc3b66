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
        """Stages that run side by side, in tasks, may be left in any order."""
        watch = current.get()
        if watch is not None:
            now = perf_counter()
            watch.seconds[watch.active[-1]] += now - watch.since
            watch.since = now
            watch.active.remove(self.index)

    def take_from(self, other: "Stage", since: float, until: float) -> None:
        """The time between two moments of perf_counter that was counted as another stage's is this one's.

        Waits side by side, as of the queries of a `gather`, count once, as the stages themselves do.
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
        # An authenticator enters `auth`, a wait for a connection of a pool `queue`, a call of another service
        # `upstream`.
        ("middleware", "auth", "db", "serialisation", "response", "cache", "queue", "upstream")
    )
)
UNMATCHED = "unmatched"  # the route of a request that no URL pattern is for


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
        """The view has returned: time that no other stage claims is the response's from now on. May be called again.

        Returns the seconds until now.
        """
        total = self.lap()
        self.active[0] = RESPONSE.index
        return total

    def rebase(self, stage: Stage) -> None:
        """Time that no other stage claims is this one's from now on."""
        self.lap()
        self.active[0] = stage.index

    def claim(self, stage: Stage) -> None:
        """As `rebase`, and the time since a stage was last entered or left is this one's, too."""
        self.active[0] = stage.index

    def finish(self) -> None:
        """File the request, whose answer is out, though more is done for it. The telemetry layer overrides it."""

    @property
    def method(self) -> str:
        """Of the request. The telemetry layer knows it."""
        return ""

    def passed_on(self) -> list[tuple[str, str]]:
        """The header fields by which another service's log names this request. The telemetry layer adds the trace."""
        return [("X-Request-ID", self.request_id.decode())]

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
