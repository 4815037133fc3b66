"""Gunicorn as gunicorn.conf.py sets it up: its addresses, its directory in memory, how many workers and seconds."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path

import pytest

from ops.machine import addresses, concurrency, cpus, memory, tmpfs
from tests.ops.telemetry.conftest import eventually, free_port
from tests.service import PATIENCE, ROOT, serve

GUNICORN = (sys.executable, "-m", "gunicorn", "config.asgi:application")
needs_ipv6 = pytest.mark.skipif(
    addresses.both("127.0.0.1") == ["127.0.0.1"], reason="no IPv6 on this machine"
)


@contextmanager
def running(
    directory: Path, *arguments: str, around: Sequence[str] = (), **variables: str
) -> Iterator[tuple[int, Path]]:
    """Gunicorn with one worker on its own port; the arbiter's pid and the log."""
    log = directory / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*around, *GUNICORN, *arguments],
            cwd=ROOT,
            env={**os.environ, "WEB_CONCURRENCY": "1", "PAGE_CACHE": "off", **variables},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield process.pid, log
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE)


def status(host: str, port: int, path: str = "/livez") -> int:
    """0 if nobody listens there."""
    with closing(HTTPConnection(host, port, timeout=PATIENCE)) as client:
        try:
            client.request("GET", path)
            return client.getresponse().status
        except ConnectionRefusedError:
            return 0


@needs_ipv6
@pytest.mark.parametrize(
    "bound", [(), ("--bind=127.0.0.1:{}", "--bind=[::1]:{}"), ("--bind=[::]:{}",)], ids=str
)
def test_both_families(tmp_path: Path, bound: tuple[str, ...]) -> None:
    """By default, as `make up` asks for it, and in one socket, as others may."""
    port, metrics = free_port(), free_port()
    variables = {"PORT": str(port), "METRICS_PORT": str(metrics), "ALLOWED_HOSTS": "127.0.0.1,[::1]"}
    with running(tmp_path, *(argument.format(port) for argument in bound), **variables):
        eventually(lambda: status("127.0.0.1", port, "/api/openapi.json") == 200)
        assert status("::1", port, "/api/openapi.json") == 200
        eventually(lambda: status("127.0.0.1", metrics, "/metrics") == 200)
        assert status("::1", metrics, "/metrics") == 200


def test_without_ipv6(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> socket.socket:
        raise OSError(97, "Address family not supported by protocol")

    monkeypatch.setattr(socket, "socket", refuse)
    assert addresses.both("0.0.0.0") == ["0.0.0.0"]  # noqa: S104  not bound
    assert addresses.both("10.0.0.1") == ["10.0.0.1"]


@pytest.mark.skipif(not Path(tmpfs.TMPFS).is_dir(), reason="no tmpfs on this machine")
def test_the_tmpfs_is_used_if_it_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    assert tmpfs.directory() == tmpfs.directory(room=4096) == tmpfs.TMPFS
    assert tmpfs.directory(room=2**60) is None
    for unfit in ("/proc", "/dev/null", "/nowhere"):
        monkeypatch.setattr(tmpfs, "TMPFS", unfit)
        assert tmpfs.directory() is None


def mounted(options: str) -> list[str]:
    """A command that runs another one with a /dev/shm of its own."""
    mount = f'mount -t tmpfs -o {options} tmpfs /dev/shm && exec "$@"'
    return ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount, "sh"]


@pytest.mark.skipif(
    not shutil.which("unshare") or bool(subprocess.run([*mounted("ro"), "true"], check=False).returncode),
    reason="needs user namespaces",
)
@pytest.mark.parametrize("options", ["ro", "size=64k"])
def test_a_tmpfs_that_is_of_no_use(tmp_path: Path, options: str) -> None:
    """Docker's --read-only and --shm-size: the service starts, and its metrics are there."""
    port, metrics = free_port(), free_port()
    variables = {"PORT": str(port), "METRICS_PORT": str(metrics), "PROMETHEUS_MULTIPROC_DIR": ""}
    with running(tmp_path, around=mounted(options), **variables) as (_, log):
        eventually(lambda: b"Booting worker" in log.read_bytes())
        eventually(lambda: status("127.0.0.1", port) == 200)
        eventually(lambda: status("127.0.0.1", metrics, "/metrics") == 200)
        assert b"No metrics" not in log.read_bytes()
        assert b"Traceback" not in log.read_bytes()


@pytest.mark.parametrize(
    ("cores", "gigabytes", "expected"),
    [(0.5, 1, 2), (2, 16, 5), (3, 16, 7), (4, 16, 8), (64, 256, 8), (64, 1, 8), (4, 0.25, 2), (8, 0.05, 1)],
)
def test_workers(monkeypatch: pytest.MonkeyPatch, cores: float, gigabytes: float, expected: int) -> None:
    monkeypatch.setattr(cpus, "available", lambda: cores)
    monkeypatch.setattr(memory, "available", lambda: int(gigabytes * 1024**3))
    assert concurrency.workers() == expected


def test_fewer_workers_than_cores_would_have_is_one_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(cpus, "available", lambda: 64)
    monkeypatch.setattr(memory, "available", lambda: 2**40)
    monkeypatch.setenv("WEB_CONCURRENCY", "")
    concurrency.report(8)
    (line,) = caplog.messages
    assert line.startswith("8 workers, not the 129 of 64 cores")
    caplog.clear()
    monkeypatch.setenv("WEB_CONCURRENCY", "8")
    concurrency.report(8)
    assert not caplog.messages


def lay_out(root: Path, own: str, **limits: str) -> Path:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(own)
    for name, limit in limits.items():
        file = root / "sys/fs/cgroup" / name.replace("__", "/").replace("_max", ".max")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{limit}\n")
    return root


@pytest.mark.parametrize(
    ("own", "limits", "expected"),
    [
        ("0::/a/b\n", {"a__b__memory_max": "1000", "a__memory_max": "max"}, 1000),
        ("0::/a/b\n", {"a__b__memory_max": "1000", "a__memory_max": "500"}, 500),
        ("0::/a\n", {"memory_max": "700"}, 700),
        ("5:memory:/a\n", {"memory__a__memory.limit_in_bytes": "800"}, 800),
        ("5:memory:/a\n", {"memory__a__memory.limit_in_bytes": "9223372036854771712"}, None),
        ("5:cpu:/a\n", {"cpu__a__memory.limit_in_bytes": "800"}, None),
        ("0::/\n", {}, None),
    ],
)
def test_memory(tmp_path: Path, own: str, limits: dict[str, str], expected: int | None) -> None:
    assert memory.available(lay_out(tmp_path, own, **limits)) == (
        expected or memory.available(Path("/nowhere"))
    )


def test_a_debugger_has_no_time_out() -> None:
    """A worker that stands still, as at a prompt, is killed after 20 s otherwise."""
    ask = "import runpy; print(runpy.run_path('gunicorn.conf.py')['timeout'])"
    for debug, expected in (("true", "0"), ("false", "20")):
        variables = {**os.environ, "DEBUG": debug}
        done = subprocess.run(
            [sys.executable, "-c", ask], cwd=ROOT, env=variables, capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == expected


def test_keepalive_reaches_the_connections(tmp_path: Path) -> None:
    with (
        serve({"KEEPALIVE": "1"}, tmp_path) as service,
        socket.create_connection(service.address, PATIENCE) as client,
    ):
        client.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert client.recv(10_000).startswith(b"HTTP/1.1 200 ")
        answered = time.monotonic()
        assert client.recv(1) == b""
        assert 0.5 < time.monotonic() - answered < PATIENCE / 2
