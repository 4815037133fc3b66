"""The first page of products as `raw` answers it, read once, for the contenders that serve only this page."""

import os

import psycopg

from ops.tools.lab.contenders.raw.app import LIST


def page(limit: int) -> bytes:
    with psycopg.connect(os.environ["DATABASE_URL"], options="-c TimeZone=UTC") as connection:
        rows: tuple[str, int] | None = connection.execute(LIST.format(limit).encode()).fetchone()
    return b'{"next":null,"previous":null,"results":[%b]}' % (rows[0] if rows else "").encode()
