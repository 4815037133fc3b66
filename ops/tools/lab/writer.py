"""The writing side of a run: rows that are made for it and gone after it, and the API key of its requests."""

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

FASTEST = 15_000  # requests a second that can be made only once; no contender on 2 cores makes as many


class Writer:
    """Makes the rows of a scenario on connections of its own, which may write, and looks at them by the `reader`."""

    def __init__(self, url: str, reader: Connection, writing: Writing, key: str) -> None:
        self.url, self.reader, self.writing, self.key = url, reader, writing, key

    @property
    def headers(self) -> Mapping[str, str]:
        """Of each request that writes: the service's own field for a key."""
        return {"X-API-Key": self.key}

    @property
    def digest(self) -> str:
        """By which a contender knows the key."""
        return sha256(self.key.encode()).hexdigest()

    @contextmanager
    def rows(self, count: int) -> Iterator[list[Request]]:
        """The requests, with rows for so many beside those that are for checks."""
        self._on(self.writing.clear)
        try:
            yield self._on(lambda database: self.writing.make(database, CHECKED + count))
        finally:
            self._on(self.writing.clear)

    def read(self, key: int) -> Row | None:
        return self.writing.read(self.reader, key)

    def settle(self) -> None:
        self._on(self.writing.settle)

    def reads(self) -> list[Request]:
        """The reads beside the writes of an open loop."""
        return self.writing.reads(self.reader) if self.writing.reads else []

    def _on(self, work: Callable[[Connection], Found]) -> Found:
        with closing(connect(self.url, write=True)) as database:
            return work(database)


@contextmanager
def opened(url: str, reader: Connection, writing: Writing) -> Iterator[Writer]:
    """A writer with a new API key. Its rows and the key are gone afterwards, also if the run is stopped."""
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
    """As people make one, by manage.py; it is written once, and only its digest is stored."""
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
