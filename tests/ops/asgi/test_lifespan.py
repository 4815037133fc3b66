"""Start-up and shutdown of a worker, asked of gunicorn itself."""

import asyncio
import gc
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from asgiref.compatibility import is_double_callable
from uvicorn import Config

from api.cache.layer import PageCache
from ops.asgi.head import Head
from ops.asgi.hosts import AllowedHosts
from ops.asgi.lifespan import Lifespan
from ops.asgi.probes import Probes
from ops.asgi.telemetry import Telemetry
from ops.asgi.types import Receive, Scope, Send
from ops.telemetry.health import Health
from ops.telemetry.readiness import announce_readiness, readiness

ROOT = Path(__file__).parents[3]
PROGRAM = """
import gc
from contextlib import asynccontextmanager
from ops.asgi.garbage import settle_heap
from ops.asgi.lifespan import Lifespan

def resource(name, opens=True):
    @asynccontextmanager
    async def hold():
        if not opens:
            raise ConnectionError("nobody\\nthere")
        print(f"open {name}, frozen: {gc.get_freeze_count() > 1000}, youngest: {gc.get_threshold()[0]}", flush=True)
        try:
            yield
        finally:
            print(f"close {name}", flush=True)
    hold.__name__ = name
    return hold

good = Lifespan(None, resource("first"), settle_heap, resource("second"))
bad = Lifespan(None, resource("first"), resource("second", opens=False))
"""


@pytest.fixture
def program(tmp_path: Path) -> Path:
    (tmp_path / "program.py").write_text(PROGRAM)
    return tmp_path


def gunicorn(program: Path, application: str) -> "subprocess.Popen[str]":
    """Start one worker. It imports the application itself, so that only the lifespan freezes anything."""
    options = [
        "--bind=127.0.0.1:0",
        "--workers=1",
        "--worker-class=ops.gunicorn.worker.Worker",
        "--config=/dev/null",
    ]
    return subprocess.Popen(
        [sys.executable, "-m", "gunicorn", *options, f"--chdir={program}", f"program:{application}"],
        cwd=program,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_resources_are_held_while_the_worker_serves(program: Path) -> None:
    with gunicorn(program, "good") as server:
        assert server.stdout
        opened = [server.stdout.readline(), server.stdout.readline()]
        server.send_signal(signal.SIGTERM)
        closed, _ = server.communicate(timeout=20)
    assert opened == [
        f"open first, frozen: False, youngest: {gc.get_threshold()[0]}\n",  # this Python's default
        "open second, frozen: True, youngest: 2000\n",
    ]
    assert closed.splitlines() == ["close second", "close first"]
    assert server.returncode == 0


def test_failed_start_stops_the_server_with_one_line(program: Path) -> None:
    with gunicorn(program, "bad") as server:
        printed, logged = server.communicate(timeout=20)
    assert server.returncode == 3
    assert printed.splitlines()[-1] == "close first"
    assert "The startup of second failed: ConnectionError: nobody there\n" in logged
    assert "Traceback" not in logged


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    await send(scope)


def probes(application: Any) -> Probes:
    return Probes(application, Health({}))


@pytest.mark.parametrize("layer", [Lifespan, Telemetry, probes, AllowedHosts, Head, PageCache])
def test_servers_and_wrappers_take_each_layer_for_asgi_3(layer: Any) -> None:
    """As daphne and OpenTelemetry ask, and as uvicorn does."""
    assert not is_double_callable(layer(application))  # type: ignore[no-untyped-call]
    config = Config(layer(application), interface="auto", log_config=None)
    config.load()
    assert config.interface == "asgi3"


async def _run(layer: Lifespan, *types: str) -> list[Any]:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message["type"])

    async def receive() -> Any:
        return {}

    for kind in types:
        await layer({"type": kind}, receive, send)
    return sent


def test_a_server_without_lifespan_is_served_and_told_once(caplog: pytest.LogCaptureFixture) -> None:
    layer = Lifespan(application, announce_readiness)
    with caplog.at_level(logging.WARNING, "ops.asgi.lifespan"):
        assert asyncio.run(_run(layer, "http", "http")) == ["http", "http"]
    assert readiness.state == "ready"
    assert [record.getMessage() for record in caplog.records] == [
        "The server has no ASGI lifespan. It serves without announce_readiness: slower, with threads"
    ]
    started = ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert asyncio.run(_run(layer, "lifespan")) == started
    readiness.started = False
