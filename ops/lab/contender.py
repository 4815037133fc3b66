"""What a contender is: a command that serves `/api/products` on a port with a number of workers."""

import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata

ROOM = "ops.lab.contenders"


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """`command` and `environment` may have {python}, {port}, {workers}, and {start}, which no other start has."""

    name: str
    summary: str
    command: tuple[str, ...]
    packages: tuple[str, ...] = ()  # those whose versions identify it
    program: str = ""  # the same, of what is no package; it prints its version with -v
    environment: Mapping[str, str] = field(default_factory=dict)
    at_root: bool = False  # it starts in the project's directory, where gunicorn.conf.py is
    redis: bool = False  # it needs REDIS_URL

    @property
    def versions(self) -> str | None:
        """Names and versions of its packages and its program, or None if one is not installed."""
        try:
            found = [f"{package} {metadata.version(package)}" for package in self.packages]
        except metadata.PackageNotFoundError:
            return None
        if self.program:
            if not shutil.which(self.program):
                return None
            printed = subprocess.run([self.program, "-v"], capture_output=True, text=True, check=False)
            found.append((printed.stdout + printed.stderr).strip().rpartition(": ")[2])
        return ", ".join(found)


def gunicorn(application: str, *options: str) -> tuple[str, ...]:
    bind = ("--bind", "127.0.0.1:{port}", "--workers", "{workers}", "--no-control-socket")
    return ("{python}", "-m", "gunicorn", f"{ROOM}.{application}", *bind, *options)


def uvicorn(application: str) -> tuple[str, ...]:
    bind = ("--host", "127.0.0.1", "--port", "{port}", "--workers", "{workers}")
    options = ("--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning")
    return ("{python}", "-m", "uvicorn", f"{ROOM}.{application}", *bind, *options)
