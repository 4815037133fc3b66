"""`make check` and `make test`: what people and CI run before a change goes in.

On throwaway servers, so that neither needs or touches those of `make up`.
"""

import os
import shlex
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from ops.embedded import child, environment, venv
from ops.embedded.console import Failure
from ops.embedded.paths import LOCAL, ROOT, VENV
from ops.embedded.servers import Servers, remove_leftovers

GROUPS = ("runtime", "embedded", "dev", "profile")
TESTED = ("3.11", "3.13")  # the oldest and the newest Python; where one is missing the other has to do
# The linter's command, without the linter among the service's INSTALLED_APPS.
LINT_MIGRATIONS = """
import django; django.setup()
from django.core.management import call_command
from django_migration_linter.management.commands.lintmigrations import Command
call_command(Command(), project_root_path=".", no_cache=True)
"""
CHECKS = (
    ("ruff", "check"),
    ("ruff", "format", "--check"),
    ("mypy",),
    ("lint-imports",),
    ("python", "manage.py", "makemigrations", "--check"),
    ("python", "manage.py", "check", "--deploy", "--fail-level", "WARNING"),
    ("python", "-c", LINT_MIGRATIONS),
    ("python", "-m", "ops.prometheus"),
)
CONFORMANCE = ("python", "-m", "tests.conformance.run")
# Three at once take 218 s instead of 270 on 2 cores, and leave the tests that kill and reset less of a chance.
TESTS = ("pytest", "-n", "2")
# The tests that speak to the service, on Django's own handler: the two may differ in speed only. One Python will do.
STOCK = (*TESTS, "tests/products", "tests/api", "--ignore=tests/api/cache")


def check() -> int:
    venv.ensure(VENV, GROUPS, sys.executable)
    _run(_in(VENV, command) for command in CHECKS)
    return 0


def conformance() -> int:
    venv.ensure(VENV, GROUPS, sys.executable)
    _run([_in(VENV, CONFORMANCE)])
    return 0


def test() -> int:
    venv.ensure(VENV, GROUPS, sys.executable)
    commands = [_in(VENV, command) for command in (*CHECKS, CONFORMANCE)]
    stock = ["env", "ASGI_HANDLER=stock", *_in(VENV, STOCK)]
    _run([*commands, stock, *(_in(each, TESTS) for each in (VENV, *_other_venvs()))])
    return 0


def _in(directory: Path, command: Sequence[str]) -> list[str]:
    return [str(directory.relative_to(ROOT) / "bin" / command[0]), *command[1:]]


def _run(commands: Iterable[list[str]]) -> None:
    """Run each, until one fails."""
    remove_leftovers()
    servers = Servers(LOCAL / f"test-{os.getpid()}", durable=False)
    variables = environment.complete(servers) | {"DJANGO_SETTINGS_MODULE": "config.settings"}
    with servers:
        environment.check(variables)
        for command in commands:
            shown = shlex.join(command).replace(LINT_MIGRATIONS, "...")
            print(f"\n$ {shown}", flush=True)
            if child.finish(command, variables):
                raise Failure(f"{shown} failed")


def _other_venvs() -> Iterable[Path]:
    """Build an environment for each tested Python that is here and is not .venv's."""
    for version in TESTED:
        if (VENV / "lib" / f"python{version}").exists():
            continue
        found = subprocess.run(
            ["sh", ROOT / "ops/embedded/find-python.sh", version], capture_output=True, text=True, check=False
        )
        if found.returncode:
            print(f"Python {version} is not here: not tested with it", flush=True)
            continue
        directory = ROOT / f".venv-{version}"
        venv.ensure(directory, GROUPS, found.stdout.strip())
        yield directory
