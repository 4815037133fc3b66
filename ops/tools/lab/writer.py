"""The writing side of a run: rows that are made before it and deleted after it, and the API key of its requests."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from hashlib import sha256
from secrets import token_hex
from typing import TypeVar

from ops.tools.lab.contender import SUB10
from ops.tools.lab.failure import LabError
from ops.tools.lab.scenarios import CHECKED, Connection, Request, Row, Writing, connect
from ops.tools.lab.servers import ROOT

Found = TypeVar("Found")

FASTEST = 15_000  # requests a second to prepare for a closed loop; no contender on 2 cores answers as many


class Writer:
    """Makes the rows of a scenario on connections of its own, which may write, and reads them by `reader`."""

    def __init__(self, url: str, reader: Connection, writing: Writing, key: str) -> None:
        self.url, self.reader, self.writing, self.key = url, reader, writing, key

    @property
    def headers(self) -> Mapping[str, str]:
        """The header fields of each request that writes: the API key, in the field that the service reads."""
        return {"X-API-Key": self.key}

    @property
    def digest(self) -> str:
        """The SHA-256 of the API key, by which a contender knows the key."""
        return sha256(self.key.encode()).hexdigest()

    @contextmanager
    def rows(self, count: int) -> Iterator[list[Request]]:
        """Make rows for `count` requests and for CHECKED checks, yield the requests, and delete the rows."""
        self._on(self.writing.clear)
        try:
            yield self._on(lambda database: self.writing.make(database, CHECKED + count))
        finally:
            self._on(self.writing.clear)

    def read(self, key: int) -> Row | None:
        """Return a row as Postgres holds it, or None if there is none."""
        return self.writing.read(self.reader, key)

    def settle(self) -> None:
        self._on(self.writing.settle)

    def reads(self) -> list[Request]:
        """Return the reads beside the writes of an open loop, if the scenario has any."""
        return self.writing.reads(self.reader) if self.writing.reads else []

    def _on(self, work: Callable[[Connection], Found]) -> Found:
        with closing(connect(self.url, write=True)) as database:
            return work(database)


@contextmanager
def opened(url: str, reader: Connection, writing: Writing) -> Iterator[Writer]:
    """Yield a writer with a new API key. Its rows and the key are deleted afterwards, also if the run is stopped."""
    name = f"lab-{token_hex(6)}"
    try:
        writer = Writer(url, reader, writing, _new_key(name, writing.scope))
        writer.settle()
        yield writer
    finally:
        with closing(connect(url, write=True)) as database:
            writing.clear(database)
            writing.settle(database)
            database.execute("DELETE FROM api_keys_apikey WHERE name = %s", (name,))


def _new_key(name: str, scope: str) -> str:
    """Make an API key by manage.py, as people do, and return it. Only its digest is stored. Raises LabError."""
    settings = {name: value for name, value in SUB10.environment.items() if "{" not in value}
    done = subprocess.run(
        [sys.executable, "manage.py", "apikey", "create", name, "--scope", scope],
        cwd=ROOT,
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if done.returncode:
        raise LabError(f"No API key could be made:\n{done.stderr.strip()[-2000:]}")
    return done.stdout.strip()
