"""The answers that are kept for requests with an Idempotency-Key: one row each, in the transaction of the write.

The SQL is written by hand: the ORM has no lock by a number, and no INSERT that replaces a row on a condition.

Exactly once rests on two things of Postgres. A request runs only while its transaction has the advisory lock of its
key, so others with the key are told to wait. And the key is the primary key of the row that commits with the write,
so two writes with one key cannot both commit, whatever became of the lock. A connection that is lost, or a worker
that is killed, lets go of the lock and of all that it has not committed.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import orjson
from django.conf import settings
from psycopg.pq.abc import PGresult

from ops.postgres.pool import fetch
from ops.postgres.statement import Param, Statement

TABLE = "api_idempotency_key"
MOST_EXPIRED = 10  # rows that a request with a key deletes: more than the one that it adds


class Asked(NamedTuple):
    """A request with a key, by two SHA-256: of its key, with the client, method and path; and of what it asks for."""

    digest: bytes
    request: bytes


class Answer(NamedTuple):
    """One that is kept: that of `request`, with the rows that it has changed: primary keys by the model's label."""

    request: bytes
    status: int
    fields: Sequence[tuple[str, str]]
    body: bytes
    changed: Mapping[str, Sequence[str]]


LOCK = Statement("SELECT pg_try_advisory_xact_lock(%s)", (Param("lock"),), repeatable=False)
LOOK = Statement(
    f"SELECT request, status, fields, body, changed FROM {TABLE} WHERE digest = %s AND time_expires > now()",
    (Param("digest"),),
)
# As many rows as it is told, of others than a digest. Rows that another request is about to delete are left to it.
EXPIRE = f"""
    WITH expired AS (
        SELECT digest FROM {TABLE} WHERE time_expires <= now() AND digest <> %s
        ORDER BY time_expires LIMIT %s FOR UPDATE SKIP LOCKED
    )
    DELETE FROM {TABLE} USING expired WHERE {TABLE}.digest = expired.digest
"""
# The row of an answer that has expired, and that no request has deleted yet, is replaced.
KEEP = Statement(
    f"""
    WITH deleted AS ({EXPIRE})
    INSERT INTO {TABLE} AS kept (digest, request, status, fields, body, changed, time_created, time_expires)
    VALUES (%s, %s, %s, %s, %s, %s, now(), now() + make_interval(hours => %s))
    ON CONFLICT (digest) DO UPDATE SET
        (request, status, fields, body, changed, time_created, time_expires) = (excluded.request, excluded.status,
         excluded.fields, excluded.body, excluded.changed, excluded.time_created, excluded.time_expires)
    WHERE kept.time_expires <= now()
    RETURNING true
    """,
    (Param("digest"), MOST_EXPIRED, *map(Param, ("digest", *Answer._fields, "hours"))),
    repeatable=False,
)


async def claim(asked: Asked) -> tuple[Answer | None, bool]:
    """The answer, if there is one, and whether the transaction has the key to itself: one round trip.

    Two statements: the second sees all that was committed before the first had the lock. The snapshot of a single one
    would be older than its lock, and lack the answer of a request that has ended in between. The answer counts
    without the lock, too: it is committed, and requests that are only answered hold each other up by no lock.
    """
    lock, digest = int.from_bytes(asked.digest[:8], signed=True), asked.digest
    locked, found = await asyncio.gather(
        fetch(LOCK, LOCK.bind({"lock": lock})), fetch(LOOK, LOOK.bind({"digest": digest}))
    )
    return _answer(found), locked.get_value(0, 0) == b"t"


async def look(asked: Asked) -> Answer | None:
    """The answer, if there is one."""
    return _answer(await fetch(LOOK, LOOK.bind({"digest": asked.digest})))


async def keep(asked: Asked, answer: Answer) -> bool:
    """Keep the answer of a request; False if the key has one. Deletes a few that have expired."""
    values = answer._asdict() | {"digest": asked.digest, "hours": settings.IDEMPOTENCY_HOURS}
    values |= {name: orjson.dumps(values[name]).decode() for name in ("fields", "changed")}
    return (await fetch(KEEP, KEEP.bind(values))).ntuples > 0


def _answer(found: PGresult) -> Answer | None:
    if not found.ntuples:
        return None
    request, status, fields, body, changed = (found.get_value(0, at) or b"" for at in range(5))
    pairs = [(name, value) for name, value in orjson.loads(fields)]
    return Answer(_binary(request), int(status), pairs, _binary(body), orjson.loads(changed))


def _binary(text: bytes) -> bytes:
    r"""Of bytea's text form, `\x6869` (bytea_output = hex)."""
    return bytes.fromhex(text[2:].decode())
