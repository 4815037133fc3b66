"""Medians and ratios over interleaved rounds."""

import pytest

from ops.tools.lab.cpu import CORES, Shares
from ops.tools.lab.measurement import Load, Measurement, summarize


def rounds(target: str, *figures: tuple[float, float], rate: int | None = None) -> list[Measurement]:
    return [
        Measurement(
            round=number,
            target=target,
            rate=rate,
            load=Load(requests_per_second=requests, p50=1, p99=p99),
            cpu=Shares(server=0.25, postgres=0.25, redis=0.125, generator=0.1, others=0.0),
        )
        for number, (requests, p99) in enumerate(figures, 1)
    ]


def interleaved(*targets: list[Measurement]) -> list[Measurement]:
    return [measurement for one in zip(*targets, strict=True) for measurement in one]


def test_medians_and_ranges() -> None:
    [summary] = summarize(rounds("a", (100, 9), (300, 1), (200, 5)))
    assert (summary.requests_per_second, summary.least, summary.most) == (200, 100, 300)
    assert (summary.p99, summary.ratio, summary.p99_ratio, summary.rounds) == (5, 1, 1, 3)


def test_a_ratio_is_that_of_neighbours_in_time() -> None:
    """A neighbour took half the machine in round 1: each round's ratio is 1/2, the medians' would be 2/3."""
    first = rounds("a", (100, 2), (200, 1), (150, 4))
    second = rounds("b", (50, 4), (100, 2), (75, 8))
    second[2] = rounds("b", (100, 8), (100, 8), (100, 8))[2]
    summaries = summarize(interleaved(first, second))
    assert [summary.target for summary in summaries] == ["a", "b"]
    assert summaries[1].ratio == 0.5
    assert summaries[1].p99_ratio == 2


def test_each_rate_has_its_own_first() -> None:
    summaries = summarize(
        [
            *interleaved(rounds("a", (10, 1), rate=10), rounds("b", (10, 3), rate=10)),
            *interleaved(rounds("a", (20, 2), rate=20), rounds("b", (20, 8), rate=20)),
        ]
    )
    assert [(summary.name, summary.p99_ratio) for summary in summaries] == [
        ("a at 10/s", 1),
        ("b at 10/s", 3),
        ("a at 20/s", 1),
        ("b at 20/s", 4),
    ]


def test_one_bad_round_spoils_a_target() -> None:
    good, bad = rounds("a", (10, 1))[0], rounds("a", (10, 1))[0]
    bad = Measurement(round=2, target="a", rate=None, load=Load(**LOST), cpu=bad.cpu)
    [summary] = summarize([good, bad])
    assert summary.faults == "1,200 errors, 7 dropped"
    assert not good.load.faults


LOST = {"requests_per_second": 10, "p50": 1, "p99": 1, "errors": 1200, "dropped": 7}


def test_cost_is_cpu_time_a_request() -> None:
    [summary] = summarize(rounds("a", (1000, 1)))
    assert summary.cost == pytest.approx(0.625 * CORES * 1e6 / 1000)


def test_unknown_shares_stay_unknown() -> None:
    measurement = Measurement(
        round=1, target="a", rate=None, load=Load(requests_per_second=10, p50=1, p99=1), cpu=Shares()
    )
    [summary] = summarize([measurement])
    assert summary.cost is None
    assert summary.cpu == Shares()
