"""A run: every contender is verified first, then all are measured in turn, round after round.

One contender runs at a time, started afresh for each measurement: no idle one takes memory or wakes up meanwhile,
and no single start's luck (how its connections fell to its workers, where its memory lies) makes a figure.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ops.lab import k6, pacer, wrk
from ops.lab.contender import Contender
from ops.lab.cpu import metered
from ops.lab.measurement import Load, Measurement, named
from ops.lab.scenarios import Question
from ops.lab.servers import serve
from ops.lab.verify import verified


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a run does. `rates` are those of an open loop; a closed loop has one, None."""

    scenario: str
    contenders: list[Contender]
    rates: Sequence[int | None]
    rounds: int
    seconds: int
    warmup: int
    workers: int
    connections: int
    output: Path  # the run's own directory
    postgres: int | None  # the postmaster's process id, if it is on this machine
    redis: int | None  # the same of Redis; 0, if nobody needs it

    @property
    def closed(self) -> bool:
        return self.rates == [None]

    @property
    def loop(self) -> str:
        return f"{self.connections} connections" if self.closed else f"open loop by {self.generator}"

    @property
    def generator(self) -> str:
        """The same for all rates of a run, so that they compare."""
        rates = [rate for rate in self.rates if rate is not None]
        if not rates:
            return "wrk"
        return "k6" if max(rates) <= k6.MOST else "pacer"

    def estimate(self, targets: int) -> int:
        """Seconds that a run will take, if a contender starts in two."""
        return self.rounds * targets * len(self.rates) * (self.seconds + self.warmup + 2)


@dataclass(frozen=True, slots=True)
class Target:
    name: str
    contender: Contender
    question: Question


def verify(plan: Plan, questions: list[Question], console: Console) -> list[Target]:
    """Start each contender once and compare its answers; raises LabError at the first that differs.

    This finds out early what each measurement looks at again.
    """
    targets = []
    for contender in plan.contenders:
        with serve(contender, plan.workers, plan.output) as server:
            for question in questions:
                name = f"{contender.name}, {question.about}" if question.about else contender.name
                verified(server, name, question)
                targets.append(Target(name, contender, question))
        versions = f"[dim]({contender.versions})[/dim]"
        console.print(f"{contender.name} answers what Postgres holds {versions}", soft_wrap=True)
    return targets


def measure(plan: Plan, targets: list[Target], console: Console) -> list[Measurement]:
    """All rounds, with a line for each measurement and a bar for the rest."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    measurements = []
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=plan.rounds * len(plan.rates) * len(targets))
        for number in range(1, plan.rounds + 1):
            for rate in plan.rates:
                for target in targets:
                    progress.update(task, description=f"round {number}: {named(target.name, rate)}")
                    measurements.append(_measurement(plan, number, rate, target))
                    console.print(_line(measurements[-1]), soft_wrap=True)
                    progress.advance(task)
    return measurements


def _measurement(plan: Plan, number: int, rate: int | None, target: Target) -> Measurement:
    """The second look, once it is warm, is at what a cache has kept."""
    with serve(target.contender, plan.workers, plan.output) as server:
        paths = verified(server, target.name, target.question)
        load = _generator(plan, rate, f"http://127.0.0.1:{server.port}", paths)
        if plan.warmup:
            load(plan.warmup)
        verified(server, target.name, target.question)
        with metered(server.session, plan.postgres, plan.redis) as shares:
            seen = load(plan.seconds)
    return Measurement(round=number, target=target.name, rate=rate, load=seen, cpu=shares)


def _generator(plan: Plan, rate: int | None, url: str, paths: list[str]) -> Callable[[int], Load]:
    """A function that makes the load for so many seconds."""
    if rate is None:
        return partial(wrk.run, url, paths, connections=plan.connections, scratch=plan.output)
    run = k6.run if plan.generator == "k6" else pacer.run
    return partial(run, url, paths, rate=rate, scratch=plan.output)


def _line(measurement: Measurement) -> str:
    load = measurement.load
    faults = f"  [red]{load.faults}[/red]" if load.faults else ""
    return (
        f"  {measurement.round}  {named(measurement.target, measurement.rate):32}"
        f"{load.requests_per_second:10,.0f} req/s   p50 {load.p50:8.2f} ms   p99 {load.p99:8.2f} ms{faults}"
    )
