"""Listens in on the Postgres protocol, to count exactly what a request costs the database.

A proxy on a unix socket that passes bytes through and notes the client's messages. It sees what a mock or a hook
in the driver would not: every statement of every process, preparations, transactions, health checks.
https://www.postgresql.org/docs/current/protocol-message-formats.html
"""

import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode


class Message(NamedTuple):
    """One message of the client: Q (simple query), P (parse), B (bind), E (execute), S (sync), X (terminate), ..."""

    kind: str
    sql: str = ""  # of Q and P
    statement: str = ""  # the name of a prepared statement, of P and B
    parameters: tuple[str | None, ...] = ()  # of B, in text format


class Trap(NamedTuple):
    """What befalls the next COMMIT: it is lost on its way to the server, or, `answered`, its answer is."""

    answered: bool
    spring: Callable[[], object]  # is called before the connection is cut


class Wiretap:
    """The messages since `clear`; `url` is for the client that is listened to."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.trap: Trap | None = None  # springs once
        self.withholds: Callable[[], bool] = lambda: False  # whether the server's answers wait
        self.last_words = b""  # what the client gets in place of the next answer, before the end; once
        self.holds_ready: threading.Event | None = None  # the end of a batch (ReadyForQuery) waits for it
        self.messages: list[Message] = []
        self.prepared: dict[str, str] = {}  # SQL by name, of all connections; `clear` leaves it

    @property
    def bound(self) -> list[tuple[str, tuple[str | None, ...]]]:
        """The prepared statements that ran: SQL and parameters."""
        return [(self.prepared[m.statement], m.parameters) for m in self.messages if m.kind == "B"]

    def clear(self) -> None:
        self.messages.clear()

    def springs(self, *, answered: bool) -> bool:
        """A COMMIT is here, or its answer."""
        trap = self.trap
        if not trap or trap.answered != answered:
            return False
        self.trap = None
        trap.spring()
        return True

    @property
    def statements(self) -> list[str]:
        """The SQL of simple queries and preparations; a health check's empty query is none."""
        return [message.sql for message in self.messages if message.sql]

    @property
    def executions(self) -> int:
        """How many statements ran, prepared before or not, but for the look at the settings of a new session."""
        simple = sum(message.kind == "Q" and bool(message.sql) for message in self.messages)
        return simple + sum("pg_settings" not in sql for sql, _ in self.bound)


@contextmanager
def tap(database: Mapping[str, Any], directory: Path) -> Iterator[Wiretap]:
    """Listen in on the connections that go through the returned URL to `database` (an entry of DATABASES)."""
    parameters = urlencode({"host": directory, "port": 1})
    credentials = f"{quote(database['USER'])}:{quote(database['PASSWORD'])}"
    wire = Wiretap(f"postgresql://{credentials}@/{quote(database['NAME'])}?{parameters}")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(directory / ".s.PGSQL.1"))
        listener.listen(64)
        threading.Thread(target=_accept, args=(listener, database, wire), daemon=True).start()
        try:
            yield wire
        finally:
            listener.shutdown(socket.SHUT_RDWR)


def _accept(listener: socket.socket, database: Mapping[str, Any], wire: Wiretap) -> None:
    with suppress(OSError):  # shut down
        while True:
            client, _ = listener.accept()
            server = _connect(database)
            threading.Thread(target=_upstream, args=(client, server, wire), daemon=True).start()
            threading.Thread(target=_downstream, args=(server, client, wire), daemon=True).start()


def _connect(database: Mapping[str, Any]) -> socket.socket:
    host, port = str(database["HOST"]), database["PORT"] or 5432
    if not host.startswith("/"):
        return socket.create_connection((host, int(port)))
    server = socket.socket(socket.AF_UNIX)
    server.connect(f"{host}/.s.PGSQL.{port}")
    return server


def _downstream(server: socket.socket, client: socket.socket, wire: Wiretap) -> None:
    with client, suppress(OSError):
        while data := server.recv(65536):
            while wire.withholds():
                time.sleep(0.001)
            if wire.last_words:
                words, wire.last_words = wire.last_words, b""
                client.sendall(words)
                client.shutdown(socket.SHUT_RDWR)
                break
            if wire.holds_ready and data[-6:-5] == b"Z":
                client.sendall(data[:-6])
                wire.holds_ready.wait()
                data = data[-6:]
            if b"COMMIT\0" in data and wire.springs(answered=True):
                client.shutdown(socket.SHUT_RDWR)
                break
            client.sendall(data)


def _upstream(client: socket.socket, server: socket.socket, wire: Wiretap) -> None:
    with server, suppress(OSError):
        try:
            started, buffer = False, b""
            prepared: dict[str, str] = {}  # of this connection: psycopg gives each the same names
            while data := client.recv(65536):
                # Noted before it is passed on: whoever has the answer finds the question here.
                started, buffer, own = _note(started, buffer + data, wire)
                prepared |= {message.statement: message.sql for message in own if message.kind == "P"}
                commits = "COMMIT" in {message.sql or prepared.get(message.statement) for message in own}
                if commits and wire.springs(answered=False):
                    client.shutdown(socket.SHUT_RDWR)
                    break
                server.sendall(data)
        finally:
            server.shutdown(socket.SHUT_RDWR)  # close alone would wait for the other direction's recv


def _note(started: bool, buffer: bytes, wire: Wiretap) -> tuple[bool, bytes, list[Message]]:  # noqa: FBT001
    """Note the whole messages in `buffer`; return what is left, and them. Only the first one has no type byte."""
    own: list[Message] = []
    while len(buffer) > 4:
        head = 1 if started else 0
        end = head + int.from_bytes(buffer[head : head + 4])
        if len(buffer) < max(end, head + 4):
            break
        if started:
            message = _message(chr(buffer[0]), buffer[5:end])
            wire.messages.append(message)
            own.append(message)
            if message.kind == "P":
                wire.prepared[message.statement] = message.sql
        started, buffer = True, buffer[end:]
    return started, buffer, own


def _message(kind: str, body: bytes) -> Message:
    if kind == "Q":
        return Message(kind, sql=body[:-1].decode())
    if kind == "P":
        name, sql, _ = body.split(b"\0", 2)
        return Message(kind, sql=sql.decode(), statement=name.decode())
    if kind == "B":
        _portal, name, rest = body.split(b"\0", 2)
        return Message(kind, statement=name.decode(), parameters=tuple(_parameters(rest)))
    return Message(kind)


def _parameters(body: bytes) -> Iterator[str | None]:
    formats = int.from_bytes(body[:2])
    at = 2 + 2 * formats
    count, at = int.from_bytes(body[at : at + 2]), at + 2
    for _ in range(count):
        length, at = int.from_bytes(body[at : at + 4], signed=True), at + 4
        yield None if length < 0 else body[at : at + length].decode()
        at += max(length, 0)
