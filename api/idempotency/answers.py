"""The answers that are kept for requests with an Idempotency-Key. That of a write is stored in its transaction.

The SQL is written by hand: the ORM has no lock by a number, and no INSERT that replaces a row on a condition.

Exactly once rests on two features of Postgres. A request runs only while its transaction has the advisory lock of its
key, so others with the key are refused. And the digest of the key is the primary key of the row that commits with the
write, so two writes with one key cannot both commit, even if the lock was lost. A connection that is lost, or a
worker that is killed, releases the lock, and its uncommitted changes are undone.
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
MOST_EXPIRED = 10  # expired rows that a request with a key deletes at most; it adds only one


class Asked(NamedTuple):
    """A request with a key, as two SHA-256 digests."""

    digest: bytes  # of the key, with the client, method and path
    request: bytes  # of the content, its type, and the query


class Answer(NamedTuple):
    """A kept answer."""

    request: bytes  # the digest of the request that it answers
    status: int
    fields: Sequence[tuple[str, str]]
    body: bytes
    changed: Mapping[str, Sequence[str]]  # rows that the request has changed: keys by the model's label


LOCK = Statement("SELECT pg_try_advisory_xact_lock(%s)", (Param("lock"),), repeatable=False)
LOOK = Statement(
    f"SELECT request, status, fields, body, changed FROM {TABLE} WHERE digest = %s AND time_expires > now()",
    (Param("digest"),),
)
# Deletes expired rows: not the one of the given digest, not those that another request is deleting, and no more than
# the given number.
EXPIRE = f"""
    WITH expired AS (
        SELECT digest FROM {TABLE} WHERE time_expires <= now() AND digest <> %s
        ORDER BY time_expires LIMIT %s FOR UPDATE SKIP LOCKED
    )
    DELETE FROM {TABLE} USING expired WHERE {TABLE}.digest = expired.digest
"""
# An expired row with the digest, which no request has deleted yet, is replaced.
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
    """Lock the key. Return the kept answer, if there is one, and whether the transaction has got the lock.

    One round trip, but two statements: the second sees all that was committed before the first had the lock. A single
    statement's snapshot would be older than its lock, and could lack the answer of a request that has just ended. A
    kept answer counts also without the lock, since it is committed: requests that only get it need not wait.
    """
    lock, digest = int.from_bytes(asked.digest[:8], signed=True), asked.digest
    locked, found = await asyncio.gather(
        fetch(LOCK, LOCK.bind({"lock": lock})), fetch(LOOK, LOOK.bind({"digest": digest}))
    )
    return _answer(found), locked.get_value(0, 0) == b"t"


async def look(asked: Asked) -> Answer | None:
    """Return the kept answer, if there is one."""
    return _answer(await fetch(LOOK, LOOK.bind({"digest": asked.digest})))


async def keep(asked: Asked, answer: Answer) -> bool:
    """Keep the answer of a request; return False if the key has one already. Deletes a few expired ones, too."""
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
    r"""Return the bytes of bytea's text form, `\x6869` (bytea_output = hex)."""
    return bytes.fromhex(text[2:].decode())
