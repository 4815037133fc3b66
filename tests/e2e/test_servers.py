"""The service under other servers than gunicorn: uvicorn's command, runserver, those of others."""

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path

import httpx
import pytest
from django.test.testcases import (
    LiveServerThread,
    _StaticFilesHandler,
)

from tests import spare
from tests.service import PATIENCE, ROOT

PYTHON = (sys.executable, "-W", "error::ResourceWarning", "-m")
APPLICATION = "config.asgi:application"
SETTINGS = "from tests.settings import *\nVERSION = '{}'\n"
Start = Callable[..., "Server"]


class Server:
    """A command that serves on a port of 127.0.0.1."""

    def __init__(self, command: Sequence[str], port: int, log: Path, environment: dict[str, str]) -> None:
        self.log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT
            )
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE)

    def get(self, path: str) -> httpx.Response:
        """The answer, once the server accepts."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                return self.client.get(path)
            except httpx.TransportError:
                assert self.process.poll() is None, self.log.read_text()
                assert time.monotonic() < deadline, self.log.read_text()
                time.sleep(0.02)

    def wait_for_version(self, version: str, *, change: Callable[[], object] = lambda: None) -> None:
        """`change` the file until it is served: a reloader sees no change before its first look at the files."""
        deadline = time.monotonic() + PATIENCE
        looks = 0
        while self.get("/api/openapi.json").json()["info"]["version"] != version:
            assert time.monotonic() < deadline, self.log.read_text()
            if looks % 150 == 0:  # every three seconds: a reload takes one or two
                change()
            looks += 1
            time.sleep(0.02)

    def stop(self) -> None:
        self.client.close()
        self.process.terminate()
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise


@pytest.fixture
def start(database: spare.Database, tmp_path: Path) -> Iterator[Start]:
    """Start a command, in which {port} is replaced, with settings of which a test may change the version."""
    (tmp_path / "reloaded.py").write_text(SETTINGS.format("1.0.0"))
    with ExitStack() as stack:

        def start(*command: str, **variables: str) -> Server:
            with socket.create_server(("127.0.0.1", 0)) as free:
                port = free.getsockname()[1]
            environment = {
                **os.environ,
                "DATABASE_URL": database.url,
                "DJANGO_SETTINGS_MODULE": "reloaded",
                "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)]),
                **variables,
            }
            server = Server([word.format(port=port) for word in command], port, tmp_path / "log", environment)
            stack.callback(server.stop)
            return server

        yield start


def check(server: Server) -> None:
    """It answers, again and again, side by side, as gunicorn's workers do."""
    assert server.get("/livez").json() == {"status": "ok"}
    for _ in range(3):
        for path in ("/api/products?limit=2", "/api/products/1", "/api/docs", "/readyz", "/healthz"):
            answer = server.client.get(path)
            assert answer.status_code == 200, (path, answer.text, server.log.read_text())
            assert answer.headers.get_list("x-content-type-options") == ["nosniff"]
    page = server.client.get("/api/products?limit=2")
    assert re.fullmatch(r"[0-9a-f]{32}", page.headers["x-request-id"])
    following = server.client.get(page.json()["next"])
    assert len(following.json()["results"]) == 2
    assert server.client.head("/api/products").status_code == 200
    missing = server.client.get("/api/nothing")
    assert missing.json()["code"] == "not_found"
    assert missing.headers.get_list("content-security-policy") == [
        "default-src 'none'; frame-ancestors 'none'"
    ]
    assert server.client.get("/api/products", headers={"Host": "elsewhere.example"}).status_code == 400
    assert "Traceback" not in server.log.read_text()


UVICORN = (*PYTHON, "uvicorn", APPLICATION, "--port", "{port}")
RUNSERVER = (sys.executable, "-W", "error::ResourceWarning", "manage.py", "runserver", "{port}")


@pytest.mark.parametrize("options", [[], ["--http", "h11", "--loop", "asyncio"], ["--workers", "2"]])
def test_uvicorn(start: Start, options: list[str]) -> None:
    server = start(*UVICORN, *options)
    check(server)
    assert "cache-status" in server.client.get("/api/products").headers


def test_runserver(start: Start) -> None:
    server = start(*RUNSERVER, "--noreload")
    check(server)
    assert "cache-status" in server.client.get("/api/products").headers


def test_runserver_with_the_toolbar(start: Start) -> None:
    """Its pages need static files, which runserver of django.contrib.staticfiles would serve by WSGI."""
    server = start(*RUNSERVER, DEBUG="true")
    page = server.get("/api/docs")
    files = re.findall(r'(?:href|src)="(/static/debug_toolbar/[^"]+)"', page.text)
    assert files
    assert {server.client.get(path).status_code for path in files} == {200}
    assert "djdt-request-id" in server.client.get("/api/products").headers


def test_a_port_in_use(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as used:
        port = str(used.getsockname()[1])
        server = start(*RUNSERVER[:-1], port, "--noreload")
        assert server.process.wait(PATIENCE) == 1
    assert server.log.read_text().splitlines()[-1] == "Error: That port is already in use."


@pytest.mark.parametrize("command", [RUNSERVER, (*UVICORN, "--reload", "--reload-dir", "{port}")])
def test_a_changed_file_is_served(start: Start, tmp_path: Path, command: tuple[str, ...]) -> None:
    words = [
        str(tmp_path) if before == "--reload-dir" else word
        for before, word in zip(("", *command), command, strict=False)
    ]
    server = start(*words)
    server.wait_for_version("1.0.0")
    check(server)
    changed = SETTINGS.format("2.0.0")
    server.wait_for_version("2.0.0", change=lambda: (tmp_path / "reloaded.py").write_text(changed))
    check(server)


IN_PROCESS = """
import asyncio
import httpx, uvloop
from config.asgi import application

async def ask(*paths):
    transport = httpx.ASGITransport(application)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        return [await client.get(path) for path in paths]

async def live():
    told, asked = asyncio.Queue(), asyncio.Queue()
    living = asyncio.create_task(application({"type": "lifespan"}, asked.get, told.put))
    await asked.put({"type": "lifespan.startup"})
    assert await told.get() == {"type": "lifespan.startup.complete"}
    answers = await ask(*PATHS)
    await asked.put({"type": "lifespan.shutdown"})
    await living
    assert await told.get() == {"type": "lifespan.shutdown.complete"}
    return answers

PATHS = ("/api/products?limit=2", "/api/products?limit=2", "/readyz", "/healthz")
for run in (asyncio.run, uvloop.run) * 2:
    for answers in (run(ask(*PATHS)), run(live())):
        assert [answer.status_code for answer in answers] == [200] * 4, answers
    assert "cache-status" in answers[0].headers
    assert run(ask("/api/products?limit=2"))[0].headers.get("cache-status") is None
"""


def test_the_application_in_ones_own_process(database: spare.Database) -> None:
    """On one loop after the other, with its lifespan and without, as httpx and asgi-lifespan run it in tests."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", IN_PROCESS],
        cwd=ROOT,
        env={**os.environ, "DATABASE_URL": database.url, "ALLOWED_HOSTS": "localhost"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Error" not in done.stderr
    assert "Warning" not in done.stderr


OTHERS = {
    "hypercorn": ("hypercorn", APPLICATION, "--bind", "127.0.0.1:{port}"),
    "granian": ("granian", "--interface", "asgi", "--host", "127.0.0.1", "--port", "{port}", APPLICATION),
    "daphne": ("daphne", "--bind", "127.0.0.1", "--port", "{port}", APPLICATION),
}


@pytest.mark.parametrize("name", OTHERS)
def test_others(start: Start, name: str) -> None:
    """Those that are installed; the dependency groups have none of them."""
    if not find_spec(name):
        pytest.skip(f"{name} is not installed")
    server = start(*PYTHON, *OTHERS[name])
    check(server)
    has_lifespan = name != "daphne"
    assert ("cache-status" in server.client.get("/api/products").headers) == has_lifespan
    assert ("The server has no ASGI lifespan" in server.log.read_text()) != has_lifespan


def test_djangos_live_server() -> None:
    """It serves by WSGI, in a thread of the test."""
    thread = LiveServerThread("127.0.0.1", _StaticFilesHandler)
    thread.start()
    try:
        assert thread.is_ready.wait(PATIENCE)
        with httpx.Client(base_url=f"http://127.0.0.1:{thread.port}", timeout=PATIENCE) as client:
            assert client.get("/api/docs").status_code == 200
            assert client.get("/api/nothing").json()["code"] == "not_found"
    finally:
        thread.terminate()
