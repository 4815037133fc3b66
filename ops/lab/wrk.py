"""Closed-loop load by wrk: so many connections, each with its next request as soon as it has its answer."""

import json
import re
import shutil
import subprocess
from pathlib import Path

from ops.lab.failure import LabError
from ops.lab.measurement import Load

MILLISECONDS = {"us": 0.001, "ms": 1.0, "s": 1000.0, "m": 60_000.0}

# Each of wrk's threads asks for the paths in the same order, from its own place in the list.
SCRIPT = """
local paths = {%s}
local at = 0
function setup(thread) thread:set("at", at); at = at + 997 end
function request() at = at %% #paths + 1; return wrk.format("GET", paths[at]) end
"""


def executable() -> str:
    found = shutil.which("wrk")
    if not found:
        raise LabError("wrk is not on the PATH: apt install wrk, or brew install wrk")
    return found


def run(url: str, paths: list[str], seconds: int, *, connections: int, scratch: Path) -> Load:
    """Ask for the `paths` in turn. One thread: it can make several times the load that Python serves."""
    command = [executable(), "--latency", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "5s"]
    if len(paths) == 1:
        target = url + paths[0]
    else:
        script = scratch / "paths.lua"
        script.write_text(SCRIPT % ",".join(map(json.dumps, paths)))
        command += ["-s", str(script)]
        target = url
    done = subprocess.run(
        [*command, target], capture_output=True, text=True, timeout=seconds + 30, check=False
    )
    if done.returncode:
        raise LabError(f"wrk failed: {done.stderr.strip() or done.stdout.strip()}")
    return parse(done.stdout)


def parse(output: str) -> Load:
    """Read what `wrk --latency` prints. Answers that are not 2xx or 3xx, and sockets' errors, are errors."""
    latency = {
        f"p{percent}": float(value) * MILLISECONDS[unit]
        for percent, value, unit in re.findall(r"^ +(\d+)% +([\d.]+)(us|ms|s|m) *$", output, re.MULTILINE)
    }
    rate = re.search(r"^Requests/sec: +([\d.]+)$", output, re.MULTILINE)
    if not rate or not float(rate[1]):
        raise LabError(f"wrk had no answer:\n{output}")
    sockets = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", output)
    refused = re.search(r"Non-2xx or 3xx responses: (\d+)", output)
    errors = sum(map(int, sockets.groups())) if sockets else 0
    return Load(
        requests_per_second=float(rate[1]),
        p50=latency["p50"],
        p99=latency["p99"],
        errors=errors + (int(refused[1]) if refused else 0),
    )
