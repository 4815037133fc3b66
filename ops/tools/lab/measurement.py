"""A measurement, and the summary of many."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from ops.tools.lab.cpu import CORES, Shares


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """A load generator's figures. Latencies are in milliseconds; beside those of writes, the others are of reads."""

    requests_per_second: float
    p50: float
    p99: float
    p95: float | None = None
    writes_p50: float | None = None
    writes_p99: float | None = None
    errors: int = 0
    dropped: int = 0  # requests of an open loop that were due and never sent, since no connection was free
    pairs: int = 0  # pairs of a write and a read right after it
    stale: int = 0  # pairs with a read that did not see the write

    @property
    def faults(self) -> str:
        """The reason why the figures are invalid, in words; empty if they are valid."""
        return _faults(self.errors, self.dropped)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One target in one round."""

    round: int
    target: str
    rate: int | None  # requests a second that were due, None in a closed loop
    load: Load
    cpu: Shares

    @property
    def cost(self) -> float | None:
        """Microseconds of CPU that the contender, Postgres and Redis together took for a request; None if unknown.

        While other processes are busy, this is the steadiest figure: they reduce the rate first.
        """
        shares = (self.cpu.server, self.cpu.postgres, self.cpu.redis)
        known = [share for share in shares if share is not None]
        if len(known) < len(shares):
            return None
        return sum(known) * CORES * 1e6 / self.load.requests_per_second


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """One target over all rounds: medians, and ratios to the first target of the same rate."""

    target: str
    rate: int | None
    rounds: int
    requests_per_second: float
    least: float
    most: float
    ratio: float
    p50: float
    p95: float | None
    p99: float
    p99_ratio: float
    writes_p50: float | None
    writes_p99: float | None
    errors: int
    dropped: int
    pairs: int
    stale: int
    cost: float | None
    cpu: Shares

    @property
    def name(self) -> str:
        return named(self.target, self.rate)

    @property
    def faults(self) -> str:
        """The reason why the figures are invalid, over all rounds; empty if they are valid."""
        return _faults(self.errors, self.dropped)


def _faults(errors: int, dropped: int) -> str:
    return ", ".join(
        f"{count:,} {what}" for count, what in ((errors, "errors"), (dropped, "dropped")) if count
    )


def named(target: str, rate: int | None) -> str:
    return target if rate is None else f"{target} at {rate:,}/s"


def summarize(measurements: Sequence[Measurement]) -> list[Summary]:
    """Return a summary for each target and rate, in the order of their first measurements.

    A ratio is the median of the rounds' own ratios: within a round, the machine is in about the same state.
    """
    groups: dict[tuple[int | None, str], list[Measurement]] = {}
    for measurement in measurements:
        groups.setdefault((measurement.rate, measurement.target), []).append(measurement)
    first = {rate: group for (rate, _), group in reversed(groups.items())}
    return [_summary(group, first[rate]) for (rate, _), group in groups.items()]


def _summary(group: Sequence[Measurement], first: Sequence[Measurement]) -> Summary:
    loads = [measurement.load for measurement in group]
    pairs = [(own.load, other.load) for own, other in zip(group, first, strict=False)]
    rates = [load.requests_per_second for load in loads]
    return Summary(
        target=group[0].target,
        rate=group[0].rate,
        rounds=len(group),
        requests_per_second=median(rates),
        least=min(rates),
        most=max(rates),
        ratio=median(own.requests_per_second / other.requests_per_second for own, other in pairs),
        p50=median(load.p50 for load in loads),
        p95=_median(load.p95 for load in loads),
        p99=median(load.p99 for load in loads),
        p99_ratio=median(own.p99 / other.p99 for own, other in pairs),
        writes_p50=_median(load.writes_p50 for load in loads),
        writes_p99=_median(load.writes_p99 for load in loads),
        errors=sum(load.errors for load in loads),
        dropped=sum(load.dropped for load in loads),
        pairs=sum(load.pairs for load in loads),
        stale=sum(load.stale for load in loads),
        cost=_median(measurement.cost for measurement in group),
        cpu=Shares(
            server=_median(measurement.cpu.server for measurement in group),
            postgres=_median(measurement.cpu.postgres for measurement in group),
            redis=_median(measurement.cpu.redis for measurement in group),
            generator=_median(measurement.cpu.generator for measurement in group),
            others=_median(measurement.cpu.others for measurement in group),
        ),
    )


def _median(values: Iterable[float | None]) -> float | None:
    """Return the median of the known values, or None if none is known."""
    known = [value for value in values if value is not None]
    return median(known) if known else None
