"""`make check` and `make test`, which people and CI run before a change goes in.

They run on throwaway servers, so that neither needs or touches the servers of `make up`.
"""

import hashlib
import json
import os
import re
import secrets
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

from ops.tools.embedded import child, environment, sample, venv
from ops.tools.embedded.console import Failure
from ops.tools.embedded.paths import LOCAL, ROOT, VENV
from ops.tools.embedded.servers import Servers, remove_leftovers

GROUPS = ("runtime", "embedded", "dev", "profile")
TESTED = ("3.11", "3.13")  # the oldest and the newest Python; one that is missing is left out
# Runs the command of the migration linter, which the service's INSTALLED_APPS do not have.
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
    ("python", "-m", "ops.monitoring.prometheus"),
)
# The steps of CHECKS that may fail with another release of Django.
CHECKS_OF_DJANGO = [command for command in CHECKS if command[0] in ("mypy", "python")]
CONFORMANCE = ("python", "-m", "tests.conformance.run")
# If the vulnerability service cannot be reached, the step only prints a line.
AUDIT = ("python", "-m", "ops.tools.embedded", "audit", "--if-reachable")
# Two tests run at once. Three take 6 % less time on two cores, which are busy then; with four, tests that kill
# processes and reset connections fail.
TESTS = ("pytest", "-n", "2", "--dist", "loadgroup", "--durations=15")
# A part that has not changed since it passed its tests need not pass them again: PASSED has the SHA-256 of each part
# that has passed. In a clone with an unchanged runtime, that leaves the tests of its own resources and settings.
# ALL=runtime runs the tests of an unchanged runtime, too. ALL=1 runs all tests, on each Python.
PASSED = ROOT / "tests/passed.sha256"
TOOLS, RUNTIME, SAMPLE, LAB = "tools", "runtime", "sample", "lab"


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Tests, and the files that decide whether they pass: the tests, and all that they import, read and start.

    The runtime's files leave out all that a clone changes: resources, and the service's name and version. So a clone
    without the sample, with another name and with its own resources still has the runtime that passed its tests.
    """

    tests: tuple[str, ...]  # globs of the tests that pytest leaves out if the part has not changed
    files: tuple[str, ...]  # globs; a directory stands for all files in it
    but: tuple[str, ...] = ()  # patterns of paths among `files` that no test of the part depends on
    # by path pattern, a regex of text that no test depends on
    cut: Mapping[str, str] = field(default_factory=dict)


ROOMS = ("asgi", "checks", "gunicorn", "http", "postgres", "redis", "telemetry")
ELSEWHERE = (*(f"{folder}/*" for folder in sample.FOLDERS), "tests/test_*")  # files of SAMPLE, or of no part
PARTS = {
    TOOLS: Part(  # tools and assets outside of requests
        tests=(
            *("tests/ops/monitoring", "tests/ops/tools/lab", "tests/ops/tools/test_*"),
            "tests/ops/tools/embedded/test_[!u]*",  # all but test_up, which starts the service
        ),
        files=(
            *("ops/tools", "ops/monitoring", "ops/machine", "ops/__init__.py", "ops/project.py"),
            *("tests/ops/tools", "tests/ops/monitoring", "tests/ops/__init__.py", "tests/ops/conftest.py"),
            *("tests/*.py", "requirements", "pyproject.toml", "docs/runbook.md"),
        ),
        but=ELSEWHERE,
    ),
    RUNTIME: Part(
        tests=(
            *("tests/api", "tests/e2e", *(f"tests/ops/{room}" for room in ROOMS), "tests/ops/test_*"),
            "tests/ops/tools/embedded/test_up.py",
        ),
        files=(
            *("api", "ops", "gunicorn.conf.py", "manage.py", "pyproject.toml"),
            *(f"config/{module}.py" for module in ("__init__", "asgi", "env", "settings")),
            *("tests/*.py", *(f"tests/{room}" for room in ("api", "ops", "e2e", "conformance", "shop"))),
            *(f"requirements/{group}.txt" for group in GROUPS),
            *("docs/checks.md", "docs/runbook.md", "docs/decisions/0018-private-apis.md"),
        ),
        but=(*ELSEWHERE, "ops/monitoring/grafana/dashboards/*"),  # the dashboards have the service's name
        cut={
            # Resources, and the services that they call.
            "config/settings.py": r'^ +"(?!api\.|ops\.)\w+\.apps\.\w+",\n'
            r"|^# --- Other services (?:.*\n)+?(?=# --- )",
            "pyproject.toml": r"\A(?:.*\n)*?(?=\[tool\.pytest)",  # requirements/ has the installed packages
            "requirements/*": r"^ *#.*\n",  # the packages, or the service, that a package is there for
            "docs/checks.md": r"^(?!\| (?:api|ops)\.).*\n",  # all but the checks
            "docs/runbook.md": r"^(?!## ).*\n",  # all but the names of the alerts
        },
    ),
}
# The part that goes with the sample. Its tests run and remove the sample, and make a resource as the documents say:
# they depend on the files of all parts, and on these.
PARTS[SAMPLE] = Part(
    tests=("tests/test_remove_sample.py", "tests/test_resource.py"),
    files=(
        *(file for part in PARTS.values() for file in part.files),
        *(*sample.FOLDERS, *sample.EDITS, "config", "tests/config", "docs/writing.md", "docs/testing.md"),
    ),
)
# Runs of the laboratory over the sample. Of the service that they measure, the files that start it decide, too; the
# others have tests of their own.
PARTS[LAB] = Part(
    tests=(f"tests/{sample.SAMPLE}/test_lab.py",),
    files=(
        *(*PARTS[TOOLS].files, *sample.FOLDERS, "gunicorn.conf.py", "manage.py", "ops/gunicorn"),
        *("ops/asgi/telemetry.py", *(f"config/{module}.py" for module in ("asgi", "env", "settings"))),
    ),
    but=("tests/test_*",),
    cut=PARTS[RUNTIME].cut,
)
OF_SAMPLE = (SAMPLE, LAB)
# On the second Python: what a resource is made of. ALL=1 has all tests there, too.
SECOND = (*TESTS, "tests/config", "tests/api")
# The tests of the API with RUNTIME=stock, which may differ from the default in speed only. One Python is enough.
STOCK = (*TESTS, "tests/api", "--ignore=tests/api/cache")
# tests/conftest.py sets the variable, and all others that the tests need: so the printed line works in a shell, too.
SETTINGS = ("env", "-u", "DJANGO_SETTINGS_MODULE")
# Thousands of tests use real processes and deadlines, so one fails now and then on a busy machine. Up to RETRIED
# failed tests run a second time, alone. More of them, or one that fails alone, are a defect.
RETRIED = 20
TESTS_FAILED = 1  # pytest's exit status for failed tests; others mean an interruption or an error of its own


def check() -> int:
    """`check`: run CHECKS. Raises Failure at the first that fails."""
    venv.ensure(VENV, GROUPS, sys.executable)
    _run(_in(VENV, command) for command in CHECKS)
    return 0


def conformance() -> int:
    """`conformance`: run Django's own ASGI tests on the service's handler."""
    venv.ensure(VENV, GROUPS, sys.executable)
    _run([_in(VENV, CONFORMANCE)])
    return 0


def test() -> int:
    """`test`: run the checks, and all tests except those of unchanged parts. PASSED then has the parts that passed.

    With DJANGO=6.1 in the environment, all run on that release instead of the locked one, in .venv-django6.1, and
    PASSED stays as it is. ALL=1 runs all tests on each Python, ALL=runtime those of an unchanged runtime, too.
    """
    asked, release = os.environ.get("ALL", ""), os.environ.get("DJANGO")
    if asked not in ("", "1", RUNTIME):
        raise Failure(f"ALL is {asked!r}, not 1 or {RUNTIME}")
    names = [name for name in PARTS if name not in OF_SAMPLE or (ROOT / sample.SAMPLE).is_dir()]
    found = {name: digest_of(PARTS[name]) for name in names}
    lines = PASSED.read_text().splitlines() if PASSED.exists() else []
    passed = {line[66:]: line[:64] for line in lines}  # as sha256sum writes them
    everything = asked == "1"
    same = [] if everything else [name for name in names if found[name] == passed.get(name)]
    if RUNTIME in same and (asked or release):
        same.remove(RUNTIME)
    if same:
        print(f"As they passed their tests, and left out: {', '.join(same)}. ALL=1 runs all", flush=True)
    skipped = [f"--ignore-glob={pattern}" for name in same for pattern in PARTS[name].tests]
    where = _venv_with_django(release) if release else VENV
    venv.ensure(VENV, GROUPS, sys.executable)
    commands = [_in(where, command) for command in (CHECKS_OF_DJANGO if release else CHECKS)]
    tests = [_in(where, (*TESTS, *skipped))]
    if RUNTIME not in same:
        commands.append(_in(where, CONFORMANCE))
        tests.insert(0, ["RUNTIME=stock", *_in(where, STOCK)])
        if not release:
            tests += [_in(each, TESTS if everything else SECOND) for each in _other_venvs()]
    if not release:
        commands.append(_in(VENV, AUDIT))
    _run([*commands, *([*SETTINGS, *command] for command in tests)])
    if not release:
        passed |= {name: found[name] for name in names if name not in same}
        PASSED.write_text("".join(f"{digest}  {name}\n" for name, digest in sorted(passed.items())))
    return 0


def fuzz() -> int:
    """`fuzz`: test each OpenAPI document for longer than `make test` does.

    The variable EXAMPLES is the number of examples for each operation, SEED the number that they are made from.
    """
    venv.ensure(VENV, GROUPS, sys.executable)
    seed = os.environ.setdefault("SEED", str(secrets.randbelow(10**6)))
    examples = os.environ.setdefault("EXAMPLES", "200")
    print(f"EXAMPLES={examples} SEED={seed} make fuzz: the same again", flush=True)
    files = [str(file.relative_to(ROOT)) for file in sorted((ROOT / "tests").glob("*/test_document.py"))]
    _run([[*SETTINGS, *_in(VENV, ("pytest", "-n", "2", "-k", "every_answer", *files))]])
    return 0


def chaos() -> int:
    """`chaos ARGUMENT...`: test the promises of docs/reliability.md, with faults as long as that file says.

    The tests run one at a time, so that none disturbs the measurements of another. The arguments are pytest's.
    """
    venv.ensure(VENV, GROUPS, sys.executable)
    os.environ.setdefault("CHAOS", "long")
    _run([[*SETTINGS, *_in(VENV, ("pytest", "-m", "chaos", *sys.argv[2:]))]])
    return 0


def digest_of(part: Part) -> str:
    """Return the SHA-256 of a part's files: of their names, and of their contents without the text of `cut`."""
    whole = hashlib.sha256()
    for name in files_of(part):
        content = (ROOT / name).read_bytes()
        for pattern, left_out in part.cut.items():
            if fnmatch(name, pattern):
                content = re.sub(left_out.encode(), b"", content, flags=re.MULTILINE)
        whole.update(f"{name} {hashlib.sha256(content).hexdigest()}\n".encode())
    return whole.hexdigest()


def files_of(part: Part) -> list[str]:
    """Return the paths of a part's files in the checkout."""
    places = [path for pattern in part.files for path in ROOT.glob(pattern)]
    found = {each for path in places for each in (path.rglob("*") if path.is_dir() else [path])}
    names = sorted(each.relative_to(ROOT).as_posix() for each in found if each.is_file())
    return [
        name
        for name in names
        if not name.endswith(".pyc") and not any(fnmatch(name, pattern) for pattern in part.but)
    ]


def _in(directory: Path, command: Sequence[str]) -> list[str]:
    """Return the command with the program in the environment `directory`, as a path from the checkout."""
    return [str(directory.relative_to(ROOT) / "bin" / command[0]), *command[1:]]


def _run(commands: Iterable[list[str]]) -> None:
    """Run the commands on throwaway servers. Raises Failure at the first that fails, unless its tests pass alone."""
    remove_leftovers()
    servers = Servers(LOCAL / f"test-{os.getpid()}", durable=False)
    variables = environment.complete(servers) | {"DJANGO_SETTINGS_MODULE": "config.settings"}
    with servers, tempfile.TemporaryDirectory() as cache:  # pytest's, which lists the tests that failed last
        variables["PYTEST_ADDOPTS"] = f"{variables.get('PYTEST_ADDOPTS', '')} -o cache_dir={cache}"
        environment.check(variables)
        for command in commands:
            shown = _show(command)
            status = child.finish(command, variables)
            if status and not (status == TESTS_FAILED and _pass_alone(command, Path(cache), variables)):
                raise Failure(f"{shown} failed")


def _pass_alone(command: list[str], cache: Path, variables: dict[str, str]) -> bool:
    """Run the tests that failed beside others once more, one after the other, and return whether all of them pass.

    More than RETRIED are not run: the result is False.
    """
    file = cache / "v/cache/lastfailed"
    failed = sorted(json.loads(file.read_text())) if file.exists() else []
    if not 0 < len(failed) <= RETRIED:
        return False
    print(f"\n{len(failed)} failed beside other tests. Alone:", flush=True)
    again = [*command, "--last-failed", "-n", "0"]
    _show(again)
    if child.finish(again, variables):
        return False
    print("\nFailed beside other tests, passed alone:", *failed, sep="\n  ", flush=True)
    return True


def _show(command: list[str]) -> str:
    shown = shlex.join(command).replace(LINT_MIGRATIONS, "...")
    print(f"\n$ {shown}", flush=True)
    return shown


def _other_venvs() -> Iterable[Path]:
    """Yield an up-to-date environment for each Python of TESTED that is installed and is not .venv's."""
    for version in TESTED:
        if (VENV / "lib" / f"python{version}").exists():
            continue
        base = _find_python(version)
        if not base:
            print(f"Python {version} is not here: not tested with it", flush=True)
            continue
        directory = ROOT / f".venv-{version}"
        venv.ensure(directory, GROUPS, base)
        yield directory


def _venv_with_django(release: str) -> Path:
    """Return an environment with the locked packages, but with this release of Django.

    Its Python is the newest of TESTED, or the running one if that is not installed. Raises Failure if `release` is no
    release number.
    """
    if not re.fullmatch(r"\d+\.\d+(\.\d+)?", release):
        raise Failure(f"DJANGO is {release!r}, not a release such as 6.1 or 6.1.3")
    directory = ROOT / f".venv-django{release}"
    venv.ensure(directory, GROUPS, _find_python(TESTED[-1]) or sys.executable)
    venv.replace(directory, f"django=={release}.*")
    return directory


def _find_python(version: str) -> str:
    """Return the path of a Python of this version, or "" if none is installed."""
    command = ["sh", str(ROOT / "ops/tools/embedded/find-python.sh"), version]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
