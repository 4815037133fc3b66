"""The commands behind the Makefile: `python3 -m ops.embedded COMMAND`."""

import os
import shutil
import signal
import subprocess
import sys

from ops.embedded import child, console, environment, gate, locks, servers, up, venv
from ops.embedded.paths import LOCAL, PYTHON, ROOT, VENV

LAB_ROWS = 10_000_000
CACHES = (".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis", ".import_linter_cache")


def make_venv() -> int:
    """`venv [GROUP...]`: bring .venv up to date, with all groups if none is named."""
    venv.ensure(VENV, sys.argv[2:] or venv.GROUPS, sys.executable)
    return 0


def manage() -> int:
    """`manage ARGUMENT...`: run manage.py on the servers of `make up`, whether they are running or not."""
    venv.ensure(VENV, environment.groups(), sys.executable)
    with servers.Servers(LOCAL / "servers") as running:
        signal.signal(signal.SIGINT, lambda *_: None)  # a shell of manage.py lives on after Ctrl-C
        command = [PYTHON, "manage.py", *sys.argv[2:]]
        return subprocess.run(command, cwd=ROOT, env=environment.complete(running), check=False).returncode


def lab() -> int:
    """`lab ARGUMENT...`: run the laboratory on the servers of `make up`, with the rows that a measurement needs."""
    venv.ensure(VENV, ("runtime", "embedded", "lab"), sys.executable)
    with servers.Servers(LOCAL / "servers") as running:
        variables = environment.complete(running)
        if measures(sys.argv[2:]) and not os.environ.get("DATABASE_URL"):
            up.manage("Migrate", variables, "migrate")
            seed = ("seed_products", "--rows", str(LAB_ROWS))
            print(up.manage(f"Seed {LAB_ROWS:,} products, what is missing of them", variables, *seed))
        return child.finish([PYTHON, "-m", "ops.lab", *sys.argv[2:]], variables)


def measures(arguments: list[str]) -> bool:
    return arguments[:1] in (["closed"], ["open"]) and not {"-h", "--help"} & set(arguments)


def load() -> int:
    """`load`: hold the service on PORT against ops/load/budget.js. k6's status is 99 if the budget was not kept."""
    if not up.Gunicorn({}).answers():
        raise console.Failure(
            f"Nothing answers on port {environment.port()}: start `make up` first, or name the PORT that it has"
        )
    venv.ensure(VENV, ("runtime", "embedded", "lab"), sys.executable)
    url = {"URL": f"http://127.0.0.1:{environment.port()}"}
    k6 = [str(VENV / "bin/k6"), "run", "--quiet", "--no-usage-report", "--address", ""]
    return child.finish([*k6, "ops/load/budget.js"], os.environ | url)


def clean() -> int:
    """`clean`: stop leftover servers, and remove environments, data and caches."""
    LOCAL.mkdir(exist_ok=True)
    with locks.only(LOCAL / "up.lock", "`make up` is running: stop it first"):
        up.Gunicorn({}).stop()
        servers.remove_leftovers()
        if not servers.Servers(LOCAL / "servers", durable=False).stop_unused():
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
    "manage": manage,
    "lab": lab,
    "load": load,
    "venv": make_venv,
    "clean": clean,
}

if __name__ == "__main__":
    console.run(COMMANDS[sys.argv[1]])
