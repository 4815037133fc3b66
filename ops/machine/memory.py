"""How much memory this process uses, and may use, which in a container is not how much the machine has."""

import os
from pathlib import Path

from ops.machine import cgroups


def available(root: Path = Path("/")) -> int:
    """Return the bytes of the machine, or less by a cgroup's limit."""
    limits = [_limit(directory) for directory in cgroups.directories("memory", root)]
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([machine, *(limit for limit in limits if limit)])


def resident(root: Path = Path("/")) -> int:
    """Return the bytes of this process that are in memory, with what it shares; 0 where that is unknown."""
    try:
        _, pages, *_ = (root / "proc/self/statm").read_text().split()
    except OSError:  # not Linux
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def _limit(directory: Path) -> int | None:
    """Return the limit of one cgroup, None where there is none: `memory.max` in version 2, in version 1 another."""
    for name in ("memory.max", "memory.limit_in_bytes"):
        try:
            limit = (directory / name).read_text().strip()
        except OSError:
            continue
        return None if limit == "max" else int(limit)
    return None
