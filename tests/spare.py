"""A database of its own, for tests that migrate it, fill it or break its rules."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

import psycopg
from django.conf import settings
from psycopg import sql

from tests.service import PATIENCE, ROOT


@dataclass(frozen=True)
class Database:
    name: str

    @property
    def url(self) -> str:
        server = settings.DATABASES["default"]
        credentials = f"{quote(server['USER'])}:{quote(server['PASSWORD'])}"
        where = urlencode({"host": server["HOST"], "port": server["PORT"] or 5432})
        return f"postgresql://{credentials}@/{quote(self.name)}?{where}"

    def connect(self) -> "psycopg.Connection[Any]":
        """A connection that no transaction of Django's surrounds."""
        return psycopg.connect(self.url, autocommit=True)

    def manage(self, *command: str, **variables: str) -> "subprocess.CompletedProcess[str]":
        """What `manage.py` does to this database."""
        return subprocess.run(
            [sys.executable, "manage.py", *command],
            cwd=ROOT,
            env={**os.environ, "DATABASE_URL": self.url, **variables},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )


@contextmanager
def create(name: str, template: str = "template0") -> Iterator[Database]:
    """A copy of `template` until the block ends."""
    names = {"name": sql.Identifier(name), "template": sql.Identifier(template)}
    with Database("postgres").connect() as server:
        server.execute(sql.SQL("CREATE DATABASE {name} TEMPLATE {template}").format(**names))
        try:
            yield Database(name)
        finally:
            server.execute(sql.SQL("DROP DATABASE {name} WITH (FORCE)").format(**names))
