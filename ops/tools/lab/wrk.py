"""Closed-loop load by wrk: each of its connections sends its next request as soon as it has its answer."""

import re
import shutil
import subprocess
from pathlib import Path

from ops.tools.lab.failure import LabError
from ops.tools.lab.measurement import Load
from ops.tools.lab.scenarios import Request

MILLISECONDS = {"us": 0.001, "ms": 1.0, "s": 1000.0, "m": 60_000.0}

# Has wrk send the requests of a file in turn. In the file, each follows its length in bytes, as it is sent.
SCRIPT = """
local requests, at = {}, 0
local file = io.open("%s", "rb")
for length in function() return file:read("*n") end do
  file:read(1)
  requests[#requests + 1] = file:read(length)
end
function request() at = at %% #requests + 1; return requests[at] end
"""


def executable() -> str:
    found = shutil.which("wrk")
    if not found:
        raise LabError("wrk is not on the PATH: apt install wrk, or brew install wrk")
    return found


def run(
    url: str, requests: list[Request], seconds: int, *, connections: int, scratch: Path, headers: str = ""
) -> Load:
    """Make the `requests` in turn, by one thread, which can make several times the load that Python serves.

    `headers` are lines with their ends, for all requests but GET. Raises LabError if wrk fails.
    """
    command = [executable(), "--latency", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "5s"]
    target = url
    if len(requests) == 1 and requests[0].method == "GET" and not headers:
        target += requests[0].path
    else:
        file, script = scratch / "requests.http", scratch / "requests.lua"
        host = url.removeprefix("http://")
        wires = (request.wire(host, headers) for request in requests)
        file.write_bytes(b"".join(b"%d\n%b" % (len(wire), wire) for wire in wires))
        script.write_text(SCRIPT % file)
        command += ["-s", str(script)]
    done = subprocess.run(
        [*command, target], capture_output=True, text=True, timeout=seconds + 30, check=False
    )
    if done.returncode:
        raise LabError(f"wrk failed: {done.stderr.strip() or done.stdout.strip()}")
    return parse(done.stdout)


def parse(output: str) -> Load:
    """Return the figures in the output of `wrk --latency`. Raises LabError if wrk had no answer.

    Answers that are not 2xx or 3xx count as errors, and so do errors of sockets.
    """
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
