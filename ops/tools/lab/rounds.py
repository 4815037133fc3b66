"""A run: every contender is verified first, then all are measured in turn, round after round.

One contender runs at a time, started afresh for each measurement. So no idle contender takes memory or wakes up
meanwhile, and no figure rests on the luck of a single start (how connections fell to workers, where memory lies).
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ops.tools.lab import k6, pacer, stale, wrk
from ops.tools.lab.contender import Contender
from ops.tools.lab.cpu import Shares, metered
from ops.tools.lab.measurement import Load, Measurement, named
from ops.tools.lab.pacer import Stream
from ops.tools.lab.scenarios import CHECKED, Question, Request
from ops.tools.lab.servers import Server, serve
from ops.tools.lab.verify import verified, verified_writes
from ops.tools.lab.writer import FASTEST, Writer


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The plan of a run. `rates` has the requests a second of an open loop; for a closed loop it is [None]."""

    scenario: str
    summary: str  # of the scenario
    contenders: list[Contender]
    rates: Sequence[int | None]
    rounds: int
    seconds: int
    warmup: int
    workers: int
    connections: int
    output: Path  # the run's own directory
    postgres: int | None  # the postmaster's process id, if it is on this machine
    redis: int | None  # the process id of Redis, if it is on this machine; 0 if no contender needs Redis
    is_writing: bool = False
    writes: int = 0  # a second, beside the reads of `rates`

    @property
    def closed(self) -> bool:
        return self.rates == [None]

    @property
    def loop(self) -> str:
        if self.closed:
            return f"{self.connections} connections"
        beside = f", {self.writes:,} writes/s beside the reads" if self.writes else ""
        return f"open loop by {self.generator}{beside}"

    @property
    def generator(self) -> str:
        """The name of the load generator: the same for all rates of a run, so that their figures compare."""
        rates = [rate for rate in self.rates if rate is not None]
        if not rates:
            return "wrk"
        return "k6" if max(rates) <= k6.MOST and not self.is_writing else "pacer"

    def estimate(self, targets: int) -> int:
        """Return the seconds that a run takes, if a contender starts in two seconds, and rows are made in four."""
        each = self.seconds + self.warmup + (6 if self.is_writing else 2)
        return self.rounds * targets * len(self.rates) * each


@dataclass(frozen=True, slots=True)
class Target:
    """A contender and a question to measure it by."""

    name: str
    contender: Contender
    question: Question


def verify(
    plan: Plan, questions: list[Question], console: Console, writer: Writer | None = None
) -> list[Target]:
    """Start each contender once, compare its answers, and return the targets to measure.

    Each measurement compares them again; here errors are found early. Raises LabError at the first difference.
    """
    targets = []
    for contender in plan.contenders:
        with serve(contender, plan.workers, plan.output, questions[0].paths[0]) as server:
            for question in questions:
                name = f"{contender.name}, {question.about}" if question.about else contender.name
                verified(server, name, question)
                targets.append(Target(name, contender, question))
            if writer:
                with writer.rows(0) as requests:
                    verified_writes(server, contender.name, writer, requests[:CHECKED])
        versions = f"[dim]({contender.versions})[/dim]"
        holds = "answers and writes" if writer else "answers"
        console.print(f"{contender.name} {holds} what Postgres holds {versions}", soft_wrap=True)
    return targets


def measure(
    plan: Plan, targets: list[Target], console: Console, writer: Writer | None = None
) -> list[Measurement]:
    """Measure all targets in all rounds, and print a line for each measurement and a progress bar."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    measurements = []
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=plan.rounds * len(plan.rates) * len(targets))
        for number in range(1, plan.rounds + 1):
            for rate in plan.rates:
                for target in targets:
                    progress.update(task, description=f"round {number}: {named(target.name, rate)}")
                    measurements.append(_measurement(plan, number, rate, target, writer))
                    console.print(_line(measurements[-1]), soft_wrap=True)
                    progress.advance(task)
            if writer:
                writer.settle()
    return measurements


def _measurement(
    plan: Plan, number: int, rate: int | None, target: Target, writer: Writer | None
) -> Measurement:
    with serve(target.contender, plan.workers, plan.output, target.question.paths[0]) as server:
        if writer:
            load, shares = _writes(plan, rate, target, server, writer)
        else:
            load, shares = _reads(plan, rate, target, server)
    return Measurement(round=number, target=target.name, rate=rate, load=load, cpu=shares)


def _reads(plan: Plan, rate: int | None, target: Target, server: Server) -> tuple[Load, Shares]:
    """Warm the server up, and measure reads. Answers are compared again after the warm-up: a cache may give them."""
    requests = [Request(path) for path in verified(server, target.name, target.question)]
    load = _generator(plan, rate, server.url, None)
    if plan.warmup:
        load(requests, plan.warmup)
    verified(server, target.name, target.question)
    with metered(server.session, plan.postgres, plan.redis) as shares:
        seen = load(requests, plan.seconds)
    return seen, shares


def _writes(
    plan: Plan, rate: int | None, target: Target, server: Server, writer: Writer
) -> tuple[Load, Shares]:
    """Warm the server up, and measure requests that write rows made for them. Look for stale reads meanwhile.

    Requests that can be made only once get new rows after the warm-up.
    """
    verified(server, target.name, target.question)
    load = _generator(plan, rate, server.url, writer)
    once, most = writer.writing.once, plan.writes or rate or FASTEST
    with ExitStack() as made:
        seconds = plan.warmup or plan.seconds if once else plan.warmup + plan.seconds
        requests = made.enter_context(writer.rows(most * seconds))
        verified_writes(server, target.name, writer, requests[:CHECKED])
        if plan.warmup:
            warm = load(requests[CHECKED:], plan.warmup)
            if once:  # with rows for 2.5 times the rate of the warm-up
                made.close()
                enough = min(most, int(warm.requests_per_second * 2.5) + CHECKED)
                requests = made.enter_context(writer.rows(enough * plan.seconds))
            verified_writes(server, target.name, writer, requests[:CHECKED])
        field = writer.writing.stale
        puts = [request for request in requests[:CHECKED] if field and request.method == "PUT"]
        with (
            metered(server.session, plan.postgres, plan.redis) as shares,
            stale.watched(server, puts, field, writer.headers) as pairs,
        ):
            seen = load(requests[CHECKED:], plan.seconds)
    return replace(seen, pairs=pairs.pairs, stale=pairs.stale), shares


def _generator(
    plan: Plan, rate: int | None, url: str, writer: Writer | None
) -> Callable[[list[Request], int], Load]:
    """Return a function that makes a load of the given requests for the given seconds."""
    headers = "".join(f"{name}: {value}\r\n" for name, value in writer.headers.items()) if writer else ""
    if rate is None:
        return partial(wrk.run, url, connections=plan.connections, scratch=plan.output, headers=headers)
    if plan.generator == "k6":
        return partial(k6.run, url, rate=rate, scratch=plan.output)
    reads = writer.reads() if writer and plan.writes else []

    def paced(requests: list[Request], seconds: int) -> Load:
        streams = [Stream(reads, rate), Stream(requests, plan.writes)] if reads else [Stream(requests, rate)]
        return pacer.run(url, streams, seconds, scratch=plan.output, headers=headers)

    return paced


def _line(measurement: Measurement) -> str:
    load = measurement.load
    faults = f"  [red]{load.faults}[/red]" if load.faults else ""
    writes = "" if load.writes_p99 is None else f"   writes' p99 {load.writes_p99:8.2f} ms"
    pairs = f"   {load.stale} of {load.pairs} reads stale" if load.pairs else ""
    return (
        f"  {measurement.round}  {named(measurement.target, measurement.rate):32}"
        f"{load.requests_per_second:10,.0f} req/s   p50 {load.p50:8.2f} ms   p99 {load.p99:8.2f} ms"
        f"{writes}{pairs}{faults}"
    )
