"""`make audit`: known vulnerabilities of the packages that the lock names, and of those that the image has.

pip-audit asks PyPI, which has the advisories of the Python Packaging Authority. It runs in an environment of its own,
apart from the service's packages.

A mirror of PyPI may know no advisories; it then answers as it does for packages that it does not have. So an answer
that audits no package counts as none: the vulnerability service is unreachable.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ops.tools.embedded import venv
from ops.tools.embedded.console import Failure, step
from ops.tools.embedded.paths import LOCAL, ROOT

VENV = ROOT / ".venv-audit"
SBOM = LOCAL / "sbom/image.cdx.json"  # `make sbom` writes this file, too
DEADLINE_SECONDS = (
    120.0  # for all packages of one run of pip-audit: 200 take some 30 s, if no cache has their answers
)
SOCKET_SECONDS = "10"


class UnreachableError(Failure):
    """The vulnerability service, or the index that has pip-audit, gave no answer of use."""


class Report(NamedTuple):
    audited: int  # number of packages
    skipped: list[str]  # names of packages that the vulnerability service does not know
    found: list[str]  # a line for each vulnerability


def audit() -> int:
    """`audit [--if-reachable] [OPTION...]`: fail if there is a known vulnerability. Options are pip-audit's.

    With --if-reachable, as in `make test`, the image is left out, and if the vulnerability service cannot be reached,
    a line says so and nothing fails.
    """
    options = [option for option in sys.argv[2:] if option != "--if-reachable"]
    is_part = "--if-reachable" in sys.argv[2:]
    try:
        _ensure()
        reports = [_ask(f"Audit {len(LOCKS)} lock files", LOCKS, options)]
        if not is_part and (packages := _packages_of_image()):
            reports.append(_ask("Audit the image", [packages], [*options, "--no-deps"]))
    except UnreachableError as error:
        if not is_part:
            raise
        print(f"Not audited: {error}")
        return 0
    found = sorted({line for report in reports for line in report.found})
    for report in reports:
        skipped = f", {len(report.skipped)} unknown: {', '.join(report.skipped)}" if report.skipped else ""
        print(f"{report.audited} packages audited{skipped}")
    if found:
        print(*found, sep="\n")
        raise Failure(
            f'known vulnerabilities: {len(found)}. `make lock ARGS="--upgrade-package NAME"` takes a newer release'
        )
    return 0


LOCKS = sorted((ROOT / "requirements").glob("*.txt"))


def _ensure() -> None:
    """Bring pip-audit's environment up to date. Raises UnreachableError if that fails."""
    try:
        venv.ensure(VENV, ("audit",), sys.executable)
    except Failure as error:
        raise UnreachableError(str(error)) from error


def _ask(label: str, files: Sequence[Path], options: Sequence[str]) -> Report:
    """Return pip-audit's report on the packages of requirements files. Raises UnreachableError if it has none."""
    command = [str(VENV / "bin/pip-audit"), "--format", "json", "--progress-spinner", "off", "--disable-pip"]
    command += [
        "--timeout",
        SOCKET_SECONDS,
        *options,
        *(word for file in files for word in ("-r", str(file))),
    ]
    with step(label):
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=DEADLINE_SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            raise UnreachableError(f"there was no answer within {DEADLINE_SECONDS:.0f} s") from None
    if not done.stdout.startswith("{"):
        line = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise UnreachableError(f"pip-audit says: {line}")
    return read(json.loads(done.stdout))


def read(answer: dict[str, Any]) -> Report:
    """Return the report in pip-audit's JSON. Raises UnreachableError if no package was audited."""
    packages = answer["dependencies"]
    known = [package for package in packages if "skip_reason" not in package]
    if not known:
        raise UnreachableError("the vulnerability service knows none of the packages, as a mirror does")
    skipped = sorted({package["name"] for package in packages if "skip_reason" in package})
    found = [
        f"{package['name']} {package['version']}: {fault['id']}, "
        f"{'mended in ' + ', '.join(fault['fix_versions']) if fault['fix_versions'] else 'not mended'}"
        for package in known
        for fault in package["vulns"]
    ]
    return Report(len(known), skipped, found)


def _packages_of_image() -> Path | None:
    """Return a requirements file with the packages of the image, or None if no Docker answers.

    Raises Failure if Docker cannot build the image's bill of materials, which lists the packages.
    """
    docker = shutil.which("docker")
    if not docker or subprocess.run([docker, "info"], capture_output=True, check=False).returncode:
        print("The image is not audited: no Docker answers")
        return None
    with step("Make the bill of materials"):
        build = [docker, "build", "--target", "sbom", "--output", str(SBOM.parent), str(ROOT)]
        done = subprocess.run(build, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failure(f"docker build failed: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
    file = SBOM.with_name("requirements.txt")
    file.write_text(requirements(json.loads(SBOM.read_text())))
    return file


def requirements(sbom: dict[str, Any]) -> str:
    """Return the packages of PyPI in a CycloneDX document, as lines of a requirements file."""
    return "".join(
        f"{part['name']}=={part['version']}\n"
        for part in sbom["components"]
        if part.get("purl", "").startswith("pkg:pypi/")
    )
