"""The cgroups of this process: their limits hold in a container in place of the machine's."""

from pathlib import Path, PurePosixPath


def directories(controller: str, root: Path) -> list[Path]:
    """Return where the limits of `controller` may be: a limit binds all cgroups below it, so each one up to the root.

    Version 2 has one hierarchy (kernel documentation, admin-guide/cgroup-v2), version 1 one a controller
    (admin-guide/cgroup-v1). Inside a container the path can be that of the host while the mount shows only the
    container's own group: directories that do not exist are no error.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:  # not Linux
        return []
    found = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "" or controller in controllers.split(","):
            group = PurePosixPath(path.lstrip("/"))
            found += [root / "sys/fs/cgroup" / controllers / parent for parent in (group, *group.parents)]
    return found
