"""Django's own ASGI tests, unchanged, on LeanASGIHandler: `python -m tests.conformance.run`.

They come with Django's source distribution, of the locked version, fetched once by pip and kept under .local/.
"""

import hashlib
import re
import subprocess
import sys
import tarfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
LOCK = (ROOT / "requirements/runtime.txt").read_text()
CACHE = ROOT / ".local/conformance"
TESTS = 35  # in tests/asgi of Django 5.2; with fewer, something was not found


def main() -> str | None:
    """Run them; return what is wrong, as sys.exit() takes it."""
    pinned = re.search(r"^django==([0-9.]+)(?: \\\n +--hash=\S+)+", LOCK, re.MULTILINE)
    if not pinned:
        return "requirements/runtime.txt pins no django"
    archive = CACHE / f"django-{pinned[1]}.tar.gz"
    if not archive.exists():
        fetch(pinned[0])
    with archive.open("rb") as file:
        if f"--hash=sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}" not in pinned[0]:
            return f"{archive} is not what requirements/runtime.txt pins: remove it"
    return judge(run(unpack(archive)))


def fetch(requirement: str) -> None:
    """Download the source distribution, whose hash pip checks before it runs anything in it."""
    CACHE.mkdir(parents=True, exist_ok=True)
    (CACHE / "requirement.txt").write_text(requirement)
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary=django"]
    options = ["--require-hashes", "--requirement=requirement.txt"]
    subprocess.run([*pip, *options], cwd=CACHE, check=True)


def unpack(archive: Path) -> Path:
    """Return the directory of Django's runtests.py."""
    with tarfile.open(archive) as source:
        # As Python's documentation has it for versions that know no filters, which are those before 3.11.4.
        source.extraction_filter = getattr(tarfile, "data_filter", lambda member, _path: member)
        source.extractall(CACHE)  # noqa: S202  # its hash is the lock's
    return CACHE / archive.name.removesuffix(".tar.gz") / "tests"


def run(tests: Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "tests.conformance.substitute", str(tests / "runtests.py")]
    return subprocess.run(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, check=False)


def judge(finished: "subprocess.CompletedProcess[str]") -> str | None:
    sys.stderr.write(finished.stderr)
    if finished.returncode:
        return f"Django's tests ended with status {finished.returncode}"
    if f"Ran {TESTS} tests" not in finished.stderr:
        return f"not all of Django's {TESTS} tests ran"
    return None


if __name__ == "__main__":
    sys.exit(main())
