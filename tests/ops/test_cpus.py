"""The CPU quota, read from cgroup files laid out as the kernel does."""

import math
import os
from pathlib import Path

import pytest

from ops.machine import cpus

V2 = "0::/kubepods/pod1/web\n"
V1 = "5:memory:/docker/1\n4:cpu,cpuacct:/docker/1\n2:cpuset:/docker/1\n0::/docker/1\n"
MAX, GROUPS = "cpu.max", "sys/fs/cgroup"


def lay_out(root: Path, own: str, files: dict[str, str]) -> Path:
    for name, content in {"proc/self/cgroup": own, **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root


def v1(directory: str, quota: int) -> dict[str, str]:
    return {
        f"{GROUPS}/{directory}/cpu.cfs_quota_us": f"{quota}\n",
        f"{GROUPS}/{directory}/cpu.cfs_period_us": "100000\n",
    }


@pytest.mark.parametrize(
    ("own", "files", "expected"),
    [
        ("0::/\n", {f"{GROUPS}/{MAX}": "150000 100000\n"}, 1.5),
        ("0::/\n", {f"{GROUPS}/{MAX}": "max 100000\n"}, math.inf),
        ("0::/\n", {}, math.inf),
        (V2, {f"{GROUPS}/kubepods/pod1/web/{MAX}": "50000 100000\n"}, 0.5),
        (V2, {f"{GROUPS}/kubepods/pod1/web/{MAX}": "max 100000\n", f"{GROUPS}/kubepods/{MAX}": "9 3\n"}, 3),
        (V2, {f"{GROUPS}/{MAX}": "200000 100000\n"}, 2),
        (V1, v1("cpu,cpuacct/docker/1", 250000), 2.5),
        (V1, v1("cpu,cpuacct", 100000), 1),
        (V1, v1("cpu,cpuacct/docker/1", -1) | v1("cpu,cpuacct/docker", 400000), 4),
        (V1, v1("memory/docker/1", 100000), math.inf),
        ("1:cpu:/a:b\n", v1("cpu/a:b", 100000), 1),
    ],
)
def test_quota(tmp_path: Path, own: str, files: dict[str, str], expected: float) -> None:
    assert cpus.quota(lay_out(tmp_path, own, files)) == expected


def test_no_cgroups_no_quota(tmp_path: Path) -> None:
    assert cpus.quota(tmp_path) == math.inf


def test_available_is_never_more_than_the_machine_has() -> None:
    assert 0 < cpus.available() <= (os.cpu_count() or 1)
