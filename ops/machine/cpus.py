"""How many CPUs this process may use, which in a container is not how many the machine has."""

import math
import os
import sys
from pathlib import Path

from ops.machine import cgroups


def available() -> float:
    """Return the CPUs that this process may use: those of its affinity mask, or less by a cgroup's quota."""
    if sys.version_info >= (3, 13):
        cpus = os.process_cpu_count()
    else:
        cpus = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count()
    return min(cpus or 1, quota())


def quota(root: Path = Path("/")) -> float:
    """Return the CPUs that the cgroups of this process may use on average, math.inf without a limit.

    `cpu.max` in version 2 (kernel documentation, admin-guide/cgroup-v2), `cpu.cfs_quota_us` in version 1
    (scheduler/sched-bwc).
    """
    quotas = []
    for directory in cgroups.directories("cpu", root):
        try:
            if (directory / "cpu.max").exists():
                limit, period = (directory / "cpu.max").read_text().split()
            else:
                limit = (directory / "cpu.cfs_quota_us").read_text().strip()
                period = (directory / "cpu.cfs_period_us").read_text()
        except OSError:
            continue
        if limit not in ("max", "-1"):
            quotas.append(int(limit) / int(period))
    return min(quotas, default=math.inf)
