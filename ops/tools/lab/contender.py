"""Contender, a command that serves on a port with a number of workers, and the contenders that are the service."""

import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path

ROOM = "ops.tools.lab.contenders"


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """A server to measure. `command` and `environment` may have {python}, {port}, {workers} and {start}.

    {start} stands for a text that is different at each start.
    """

    name: str
    summary: str
    command: tuple[str, ...]
    packages: tuple[str, ...] = ()  # the versions of these packages identify the contender
    program: str = ""  # a program that identifies it, if it is no package; prints its version with -v
    environment: Mapping[str, str] = field(default_factory=dict)
    at_root: bool = False  # it starts in `root`, where gunicorn.conf.py is
    root: Path = Path(__file__).parents[3]  # the checkout that it imports from
    redis: bool = False  # it needs REDIS_URL

    @property
    def versions(self) -> str | None:
        """Names and versions of the packages, and the program's version; None if any of these is not installed."""
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


SUB10 = Contender(
    name="sub10",
    summary="the service itself, without its page cache",
    command=("{python}", "-m", "gunicorn", "--bind", "127.0.0.1:{port}"),
    environment={
        "WEB_CONCURRENCY": "{workers}",
        "PORT": "{port}",
        "SECRET_KEY": "a key that signs the cursors of measurements only",
        "ALLOWED_HOSTS": "127.0.0.1",
        "LOG_LEVEL": "warning",
        "LOG_FORMAT": "json",  # as deployed: each write logs a line at any level
        "DEBUG": "",
        "RUNTIME": "lean",
        "PAGE_CACHE": "off",
        "RATE_LIMIT_WRITE": "off",
        "RATE_LIMIT_BULK": "off",
        "ADMISSION_LIMIT": "64",  # the most connections of a closed loop by default: the peers refuse none either
    },
    packages=("django", "uvicorn", "psycopg"),
    at_root=True,
    redis=True,
)

UNTIMED = replace(
    SUB10,
    name="sub10-untimed",
    summary="the same without telemetry: no headers, logs and metrics of requests",
    command=(*SUB10.command, "ops.tools.lab.untimed:application"),
    environment={**SUB10.environment, "METRICS_PORT": "0"},
)

STOCK = replace(
    SUB10,
    name="sub10-stock",
    summary="the same with RUNTIME=stock: Django's handler, psycopg's pool, uvicorn's protocol",
    environment={**SUB10.environment, "RUNTIME": "stock"},
)

SCRAPED = replace(
    SUB10,
    name="sub10-scraped",
    summary="the same while its metrics are scraped every 100 ms",
    command=("{python}", "-m", "ops.tools.lab.scraped", *SUB10.command[3:]),
)
