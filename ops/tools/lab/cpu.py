"""The CPU that each used: the contender, Postgres, Redis, the load generator, and processes outside of the run.

All shares but the load generator's are read from /proc (proc_pid_stat(5)), and unknown on systems without it. The
kernel counts in hundredths of a second.
"""

import os
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
CORES = os.cpu_count() or 1
PROC = Path("/proc")


@dataclass(slots=True)
class Shares:
    """Parts of all cores' time, from 0 to 1, while metered() ran. None is for an unknown one."""

    server: float | None = None
    postgres: float | None = None
    redis: float | None = None
    generator: float | None = None
    others: float | None = None


@dataclass(slots=True)
class Seconds:
    """CPU seconds since the machine or the processes started; `wall` is the time of a clock."""

    generator: float
    wall: float
    server: float = 0.0
    postgres: float = 0.0
    redis: float = 0.0
    machine: float = 0.0


def postmaster(backend: int) -> int | None:
    """Return the id of the parent of `backend`, a process of Postgres, or None if it is not on this machine."""
    if not _is(backend, "postgres"):
        return None
    _, fields = _stat(PROC / str(backend))
    return int(fields[1])


def redis_process(server: int) -> int | None:
    """Return `server`, the process id that Redis or Valkey says it has, or None if it is not on this machine."""
    return server if _is(server, "redis", "valkey") else None


def _is(process: int, *names: str) -> bool:
    try:
        return _stat(PROC / str(process))[0].startswith(names)
    except OSError:
        return False


@contextmanager
def metered(session: int, postgres: int | None, redis: int | None) -> Iterator[Shares]:
    """Meter the CPU of the block, and yield the shares, which are set after it.

    `session` is the contender's, `postgres` and `redis` are process ids: None if the server is not on this machine, 0
    for a Redis that is not needed. Children of this process that end in the block count as the load generator.
    """
    shares = Shares()
    before = _read(session, postgres, redis)
    yield shares
    after = _read(session, postgres, redis)
    available = (after.wall - before.wall) * CORES
    shares.generator = (after.generator - before.generator) / available
    if (PROC / "stat").exists():
        shares.server = (after.server - before.server) / available
        if postgres is not None:
            shares.postgres = (after.postgres - before.postgres) / available
        if redis is not None:
            shares.redis = (after.redis - before.redis) / available
        if shares.postgres is not None and shares.redis is not None:
            known = shares.server + shares.postgres + shares.redis + shares.generator
            shares.others = max(0.0, (after.machine - before.machine) / available - known)


def _read(session: int, postgres: int | None, redis: int | None) -> Seconds:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = Seconds(generator=children.ru_utime + children.ru_stime, wall=time.monotonic())
    if not (PROC / "stat").exists():
        return seconds
    for directory in PROC.glob("[0-9]*"):
        try:
            _, fields = _stat(directory)
        except OSError:  # the process has ended
            continue
        used = (int(fields[11]) + int(fields[12])) / TICKS
        if int(fields[3]) == session:
            seconds.server += used
        elif directory.name == str(postgres):
            seconds.postgres += used + (int(fields[13]) + int(fields[14])) / TICKS  # and its ended children's
        elif int(fields[1]) == postgres:
            seconds.postgres += used
        elif directory.name == str(redis):
            seconds.redis += used
    user, nice, system, _idle, _iowait, irq, softirq, *_ = map(
        int, (PROC / "stat").read_text().splitlines()[0].split()[1:]
    )
    seconds.machine = (user + nice + system + irq + softirq) / TICKS
    return seconds


def _stat(directory: Path) -> tuple[str, list[str]]:
    """Return a process's name and the fields after it: state, parent, group, session, and so on.

    The name may have blanks and brackets.
    """
    text = (directory / "stat").read_text()
    return text[text.index("(") + 1 : text.rindex(")")], text[text.rindex(")") + 2 :].split()


def most_memory(session: int) -> int:
    """Return the most memory that a process of the session has had, in bytes; 0 on a system without /proc."""
    most = 0
    for status in PROC.glob("[0-9]*/status"):
        with suppress(OSError, ValueError, KeyError):  # the process has ended, or is a zombie
            if os.getsid(int(status.parent.name)) == session:
                lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
                most = max(most, int(lines["VmHWM"].split()[0]) * 1024)
    return most
