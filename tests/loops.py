"""Coroutine functions as tests, on event loops of both kinds; an exception that nobody hears of fails the test.

For a conftest: `from tests.loops import pytest_pyfunc_call, runner`.
"""

import asyncio
import gc
import inspect
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
import uvloop

DEADLINE = 60.0  # seconds until a test that waits for something fails


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """A coroutine function as a test runs on the fixture `runner`."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = inspect.signature(pyfuncitem.obj).parameters
    runner: Any = pyfuncitem.funcargs["runner"]
    runner.run(_in_time(pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in names})))
    return True


async def _in_time(work: Coroutine[Any, Any, None]) -> None:
    async with asyncio.timeout(DEADLINE):
        await work


@pytest.fixture(params=[None, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def runner(request: pytest.FixtureRequest) -> Iterator[asyncio.Runner]:
    unheard: list[dict[str, Any]] = []
    gc.freeze()  # so that the collection below looks at the test's objects only
    with asyncio.Runner(loop_factory=request.param) as runner:
        runner.get_loop().set_exception_handler(lambda _, context: unheard.append(context))
        yield runner
        gc.collect()
    gc.unfreeze()
    assert not unheard


async def until(condition: Callable[[], object], seconds: float = 10) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110  # nothing on this loop would set an event
            await asyncio.sleep(0.005)
