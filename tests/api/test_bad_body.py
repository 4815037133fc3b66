"""Content that the service does not take: refused before it is read, on any route, at no cost in memory or disk."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.service import PATIENCE, Service, serve

MIB = 1024 * 1024
CHUNK = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
Refused = Callable[..., Any]


@pytest.fixture(scope="module")
def spooling(
    django_db_setup: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Service, Path]]:
    """The service, and the directory of its temporary files."""
    spool = tmp_path_factory.mktemp("spool")
    with serve({"TMPDIR": str(spool), "PAGE_CACHE": "on"}, tmp_path_factory.mktemp("service")) as running:
        assert running.client.get("/livez").status_code == 200
        yield running, spool


def worker(service: Service) -> Path:
    """Below /proc: the only child that serves."""
    (children,) = Path(f"/proc/{service.process.pid}/task").glob("*/children")
    return Path("/proc") / children.read_text().split()[-1]


def peak(process: Path) -> int:
    """kB of memory that a process has had at most."""
    line = next(line for line in (process / "status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1])


def spooled(process: Path, directory: Path) -> list[str]:
    links = [str(link.readlink()) for link in (process / "fd").iterdir() if link.is_symlink()]
    return [link for link in links if link.startswith(str(directory))]


def flood(service: Service, head: bytes, size: int) -> bytes:
    """Send chunks until the service has had enough; what it answers."""
    with socket.create_connection(service.address, PATIENCE) as connection:
        connection.sendall(head)
        answer = bytearray()

        def read() -> None:
            with suppress(OSError):
                while data := connection.recv(65536):
                    answer.extend(data)

        reader = threading.Thread(target=read)
        reader.start()
        with suppress(OSError):
            for _ in range(size // 0x10000):
                connection.sendall(CHUNK)
                if answer:
                    break
            connection.shutdown(socket.SHUT_WR)
        reader.join()
        return bytes(answer)


@pytest.mark.chaos("200 MB header, 300 MB body, 10 MB of pipelined requests")
@pytest.mark.parametrize(
    ("method", "target", "status"),
    [("POST", "/api/products", 405), ("POST", "/nowhere", 404), ("GET", "/api/products", 413)],
)
def test_300_megabytes(spooling: tuple[Service, Path], method: str, target: str, status: int) -> None:
    """300 MB of content that is not taken get one answer, and at most 8 MB of memory, no file."""
    service, spool = spooling
    process = worker(service)
    before = peak(process)
    head = f"{method} {target} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    answer = flood(service, head.encode(), 300 * MIB)
    assert answer.startswith(b"HTTP/1.1 %d " % status), answer[:1000]
    assert answer.count(b"HTTP/1.1") == 1
    assert b"content-type: application/problem+json" in answer
    assert not spooled(process, spool)
    assert not [*spool.iterdir()]
    assert peak(process) - before < 8 * 1024


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "GET"])
def test_an_expectation_of_what_is_refused_gets_no_100(spooling: tuple[Service, Path], method: str) -> None:
    service, _ = spooling
    head = f"{method} /api/products HTTP/1.1\r\nHost: localhost\r\nContent-Length: {3 * MIB}\r\nExpect: 100-continue"
    with socket.create_connection(service.address, PATIENCE) as connection:
        connection.sendall(head.encode() + b"\r\n\r\n")
        answer = connection.recv(65536)
    assert answer.startswith(b"HTTP/1.1 413 " if method == "GET" else b"HTTP/1.1 405 ")
    assert b"connection: close" in answer


def test_content_of_a_read(api: httpx.Client, refused: Refused) -> None:
    """Is ignored while it is small; the answer is that of the same request without it."""
    for target in ("/api/products", "/api/products/1", "/api/categories"):
        with_content = api.request("GET", target, content=b'{"limit": 1}')
        assert with_content.status_code == 200
        assert with_content.content == api.get(target).content
    problem = refused(413, "/api/products", content=b"x" * (MIB + 1))
    assert problem["code"] == "content_too_large"
