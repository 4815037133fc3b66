from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolOptions:
    """The native pool of one worker. Times are in seconds."""

    prepare: bool  # whether to prepare statements; PgBouncer before 1.21 breaks them
    max_size: int  # connections
    readers: int  # of them, for statements that only read; the others are for writes and transactions
    depth: int  # quick statements under way on one connection; 1: no pipelining
    max_waiting: int  # requests that wait for a place on a connection; the next one is refused
    timeout: float  # for a place to become free
    connect_timeout: float  # for one to be opened
    deadline: float  # for an answer, until the connection is given up
    borrow: float  # until a connection goes back to psycopg_pool, which may renew it
    max_lifetime: float  # until psycopg_pool renews it
    reconnect_timeout: float  # until psycopg_pool stops trying and waits for the next demand


def startup_options(session: Mapping[str, object]) -> str:
    """Settings of a session as libpq's parameter `options` carries them."""
    return " ".join(f"-c {name}={value}" for name, value in session.items())
