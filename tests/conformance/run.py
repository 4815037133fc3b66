"""Django's own ASGI tests, unchanged, on LeanASGIHandler: `python -m tests.conformance.run`.

They come with Django's source distribution, of the installed version, fetched once by pip and kept under .local/. The
locked version's must have the lock's hash.
"""

import hashlib
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import django

ROOT = Path(__file__).parents[2]
LOCK = (ROOT / "requirements/runtime.txt").read_text()
CACHE = ROOT / ".local/conformance"
TESTS = 35  # in tests/asgi of Django 5.2, 40 in that of 6.1; with fewer, something was not found
# What the lean handler does otherwise: a body of one message needs no spool file, in which 6.1 looks for it.
DIFFERENT = {"test_read_body_thread"}


def main() -> str | None:
    """Run them; return what is wrong, as sys.exit() takes it."""
    version = django.get_version()
    pinned = re.search(rf"^django=={re.escape(version)}(?: \\\n +--hash=\S+)+", LOCK, re.MULTILINE)
    archive = CACHE / f"django-{version}.tar.gz"
    if not archive.exists():
        fetch(*([pinned[0], "--require-hashes"] if pinned else [f"django=={version}"]))
    if pinned:
        with archive.open("rb") as file:
            if f"--hash=sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}" not in pinned[0]:
                return f"{archive} is not what requirements/runtime.txt pins: remove it"
    return judge(run(unpack(archive)))


def fetch(requirement: str, *options: str) -> None:
    """Download the source distribution, whose hash pip checks before it runs anything in it, where there is one."""
    CACHE.mkdir(parents=True, exist_ok=True)
    (CACHE / "requirement.txt").write_text(requirement)
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary=django"]
    subprocess.run([*pip, *options, "--requirement=requirement.txt"], cwd=CACHE, check=True)


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
    failed = {*re.findall(r"^(?:FAIL|ERROR): (\w+)", finished.stderr, re.MULTILINE)}
    if finished.returncode and (not failed or failed - DIFFERENT):
        return f"Django's tests ended with status {finished.returncode}"
    ran = re.search(r"^Ran (\d+) tests", finished.stderr, re.MULTILINE)
    if not ran or int(ran[1]) < TESTS:
        return f"not all of Django's {TESTS} tests ran"
    return None


if __name__ == "__main__":
    sys.exit(main())
