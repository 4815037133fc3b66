"""A signal that comes while a process is started comes after it."""

import os
import signal
from collections.abc import Iterator

import pytest

from ops.tools import signals


@pytest.fixture(params=signals.STOPS, ids=lambda number: number.name)
def number(request: pytest.FixtureRequest) -> Iterator[signal.Signals]:
    """A signal that interrupts this test."""
    before = signal.signal(request.param, signal.default_int_handler)
    yield request.param
    signal.signal(request.param, before)


def test_it_comes_at_the_end_of_the_block(number: signal.Signals) -> None:
    reached = False
    with pytest.raises(KeyboardInterrupt), signals.deferred():  # noqa: PT012  the order is what is tested
        os.kill(os.getpid(), number)
        reached = True
    assert reached


def test_nothing_comes_where_nothing_came() -> None:
    before = [*map(signal.getsignal, signals.STOPS)]
    with signals.deferred():
        pass
    assert [*map(signal.getsignal, signals.STOPS)] == before
