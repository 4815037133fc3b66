"""How many CPUs this process may use, which in a container is not how many the machine has."""

import math
import os
import sys
from pathlib import Path, PurePosixPath


def available() -> float:
    """Return the CPUs that this process may use: those of its affinity mask, or less by a cgroup's quota."""
    return min(_affinity(), quota())


def quota(root: Path = Path("/")) -> float:
    """Return the CPUs that the cgroups of this process may use on average, math.inf without a limit.

    A quota binds all cgroups below it, so each one up to the root is asked: `cpu.max` in version 2 (kernel
    documentation, admin-guide/cgroup-v2), `cpu.cfs_quota_us` in version 1 (scheduler/sched-bwc).
    """
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:  # not Linux
        return math.inf
    limits = [_limit(directory) for line in lines for directory in _directories(root / "sys/fs/cgroup", line)]
    return min(limits, default=math.inf)


def _affinity() -> int:
    if sys.version_info >= (3, 13):
        return os.process_cpu_count() or 1
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _directories(mount: Path, line: str) -> list[Path]:
    """Return the directories of one line of /proc/self/cgroup, `id:controllers:path`, leaf to root.

    Inside a container the path can be that of the host while the mount shows only the container's own group:
    directories that do not exist are no error.
    """
    _, controllers, path = line.split(":", 2)
    if controllers not in ("", "cpu") and "cpu" not in controllers.split(","):
        return []
    group = PurePosixPath(path.lstrip("/"))
    return [mount / controllers / parent for parent in (group, *group.parents)]


def _limit(directory: Path) -> float:
    """Return quota / period of one cgroup, math.inf where there is none."""
    try:
        if (directory / "cpu.max").exists():
            limit, period = (directory / "cpu.max").read_text().split()
        else:
            limit = (directory / "cpu.cfs_quota_us").read_text().strip()
            period = (directory / "cpu.cfs_period_us").read_text()
    except OSError:
        return math.inf
    return math.inf if limit in ("max", "-1") else int(limit) / int(period)
