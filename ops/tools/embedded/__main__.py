"""The commands behind the Makefile: `python3 -m ops.tools.embedded COMMAND`."""

import os
import shutil
import signal
import subprocess
import sys

from ops.tools.embedded import (
    audit,
    child,
    console,
    environment,
    gate,
    locks,
    sample,
    servers,
    stand_ins,
    up,
    venv,
)
from ops.tools.embedded.paths import LOCAL, PYTHON, ROOT, VENV, postgres_program

LAB_ROWS = 10_000_000
MAY_WRITE = ("closed", "open", "bulk")  # commands of the lab with the option --write
MEASUREMENTS = (*MAY_WRITE, "export", "disturbed")  # and those that need the rows
# Groups in the order of their locking: each is held to the versions of those before it.
LOCKED = ("runtime", "embedded", "dev", "profile", "lab", "sbom", "audit")
CACHES = (".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis", ".import_linter_cache")


def make_venv() -> int:
    """`venv [GROUP...]`: bring .venv up to date, with all groups if none is named."""
    venv.ensure(VENV, sys.argv[2:] or venv.GROUPS, sys.executable)
    return 0


def manage() -> int:
    """`manage ARGUMENT...`: run manage.py on the servers of `make up`, whether they are running or not."""
    venv.ensure(VENV, environment.groups(), sys.executable)
    with servers.Servers(LOCAL / "servers") as running:
        signal.signal(signal.SIGINT, lambda *_: None)  # Ctrl-C is for manage.py: its shell lives on
        command, variables = [PYTHON, "manage.py", *sys.argv[2:]], environment.complete(running)
        # For `dbshell` where the user has no psql.
        variables["PATH"] += os.pathsep + str(postgres_program("psql").parent)
        return subprocess.run(command, cwd=ROOT, env=variables, check=False).returncode


def lab() -> int:
    """`lab ARGUMENT...`: run the laboratory on the servers of `make up`.

    A private Postgres first gets LAB_ROWS rows, and the lab may write there.
    """
    venv.ensure(VENV, ("runtime", "embedded", "lab"), sys.executable)
    with servers.Servers(LOCAL / "servers") as running:
        variables, arguments = environment.complete(running), sys.argv[2:]
        if needs_rows(arguments) and not os.environ.get("DATABASE_URL"):
            up.manage("Migrate", variables, "migrate")
            seed = ("seed", "--rows", str(LAB_ROWS))
            print(up.manage(f"Seed {LAB_ROWS:,} rows, what is missing of them", variables, *seed))
            if arguments[0] in MAY_WRITE:
                arguments.append("--write")  # the database is the checkout's own
        return child.finish([PYTHON, "-m", "ops.tools.lab", *arguments], variables)


def needs_rows(arguments: list[str]) -> bool:
    """Return whether the lab's arguments are a measurement of rows."""
    return arguments[:1] in [[each] for each in MEASUREMENTS] and not {"-h", "--help"} & {*arguments}


def load() -> int:
    """`load`: hold the service on PORT against ops/tools/load/budget.js. The exit status is k6's: 99 over budget."""
    if not up.Gunicorn({}).answers():
        raise console.Failure(
            f"Nothing answers on port {environment.port()}: start `make up` first, or name the PORT that it has"
        )
    venv.ensure(VENV, ("runtime", "embedded", "lab"), sys.executable)
    url = {"URL": f"http://127.0.0.1:{environment.port()}"}
    k6 = [str(VENV / "bin/k6"), "run", "--quiet", "--no-usage-report", "--address", ""]
    return child.finish([*k6, "ops/tools/load/budget.js"], os.environ | url)


def lock() -> int:
    """`lock OPTION...`: renew requirements/*.txt, each group within the versions of the groups before it."""
    venv.ensure(VENV, ("runtime", "dev"), sys.executable)
    uv = [
        str(VENV / "bin/uv"),
        "pip",
        "compile",
        "--python",
        PYTHON,
        "--universal",
        "--python-version",
        "3.11",
    ]
    uv += ["--generate-hashes", "--quiet", "--custom-compile-command", "make lock", *sys.argv[2:]]
    known: list[str] = []
    for group in LOCKED:
        file = f"requirements/{group}.txt"
        source = ["pyproject.toml"] if group == "runtime" else ["--group", group]
        if status := child.finish([*uv, *source, *known, "-o", file], dict(os.environ)):
            return status
        known += ["-c", file]
    return 0


def clean() -> int:
    """`clean`: stop leftover servers, and remove environments, data and caches. Raises Failure if any is in use."""
    LOCAL.mkdir(exist_ok=True)
    with locks.only(LOCAL / "up.lock", "`make up` is running: stop it first"):
        for daemon in (up.Gunicorn({}), stand_ins.StandIns()):
            daemon.stop()
        servers.remove_leftovers()
        left = servers.Servers(LOCAL / "servers", durable=False)
        if left.postgres.runs_by_hand():
            raise console.Failure(
                f"Postgres was restarted by hand: stop it with `kill -INT {left.postgres.pid}`"
            )
        if not left.stop_unused():
            raise console.Failure("`make manage` is running: wait for its end")
        for path in (LOCAL, *ROOT.glob(".venv*"), *(ROOT / name for name in CACHES)):
            shutil.rmtree(path, ignore_errors=True)
        for path in (*ROOT.glob("__pycache__"), *ROOT.glob("*/**/__pycache__")):
            shutil.rmtree(path, ignore_errors=True)
    return 0


COMMANDS = {
    "up": up.up,
    "test": gate.test,
    "check": gate.check,
    "conformance": gate.conformance,
    "fuzz": gate.fuzz,
    "chaos": gate.chaos,
    "audit": audit.audit,
    "manage": manage,
    "remove-sample": sample.remove,
    "lab": lab,
    "load": load,
    "venv": make_venv,
    "lock": lock,
    "clean": clean,
}

if __name__ == "__main__":
    environment.leave_foreign()
    console.run(COMMANDS[sys.argv[1]])
