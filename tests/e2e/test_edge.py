"""The service itself, as clients that do not behave find it."""

import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service import PATIENCE, Service, serve

pytestmark = pytest.mark.lean

CLOSE = b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
POST = b"POST /api/products HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n" % len(CLOSE)
OFFER = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n"


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with serve({}, tmp_path) as service:
        assert service.client.get("/livez").status_code == 200
        yield service


def connect(service: Service, data: bytes) -> socket.socket:
    connection = socket.create_connection(service.address, PATIENCE)
    connection.sendall(data)
    return connection


def test_upgrade_with_content(service: Service) -> None:
    """The content, which itself looks like requests, is none, and the connection ends with the refusal of the method.

    Nothing is said of the upgrade in the log.
    """
    with connect(service, POST + OFFER + b"\r\n") as connection:
        service.client.get("/livez")  # the only worker has then read the head
        connection.sendall(CLOSE + CLOSE)
        answers = b""
        while data := connection.recv(65536):
            answers += data
    assert answers.count(b"HTTP/1.1 ") == 1
    assert answers.startswith(b"HTTP/1.1 405 ")
    assert b"\r\nconnection: close\r\n" in answers
    assert b"pgrade" not in service.log.read_bytes()


def test_large_head(service: Service) -> None:
    with connect(service, b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 50_000_000) as connection:
        assert connection.recv(65536).startswith(b"HTTP/1.1 431 ")
    assert service.client.get("/livez").status_code == 200


def test_stop_while_requests_have_come_by_half(service: Service) -> None:
    beginnings = (
        b"",
        CLOSE[:-2],
        POST + b"\r\n" + CLOSE[:9],
        POST.replace(b"products", b"x") + OFFER + b"\r\n",
    )
    connections = [connect(service, data) for data in beginnings]
    service.client.get("/livez")
    began = time.monotonic()
    service.process.send_signal(signal.SIGTERM)
    service.process.wait(PATIENCE)
    assert time.monotonic() - began < 10
    for connection in connections:
        connection.close()
