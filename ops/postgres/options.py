from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolOptions:
    """The native pool of one worker. Times are in seconds."""

    prepare: bool  # whether to prepare statements; PgBouncer before 1.21 breaks them
    max_size: int  # connections
    readers: int  # connections that reads may use; writes and transactions may use all but the first
    depth: int  # quick statements under way on one connection, at most; 1: no pipelining
    max_waiting: int  # requests that wait for a place on a connection; the next one is refused
    timeout: float  # for a place to become free
    connect_timeout: float  # for a connection to be opened
    deadline: float  # for an answer, until the connection is given up
    borrow: float  # until a connection goes back to psycopg_pool, which may renew it
    max_lifetime: float  # until psycopg_pool renews a connection
    reconnect_timeout: float  # until psycopg_pool stops trying to connect, and waits for the next request


def startup_options(session: Mapping[str, object]) -> str:
    """Return the settings of a session as the value of libpq's parameter `options`."""
    return " ".join(f"-c {name}={value}" for name, value in session.items())
