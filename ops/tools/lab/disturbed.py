"""Reads at a constant rate by one worker, alone and beside its other work: exports, clients that read slowly.

The clients of a disturbance run in a process of their own (reader.py); the pacer makes the reads. Each round also
measures the reads alone.
"""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from ops.tools.lab import pacer
from ops.tools.lab.contender import Contender
from ops.tools.lab.cpu import most_memory
from ops.tools.lab.failure import LabError
from ops.tools.lab.measurement import Load
from ops.tools.lab.scenarios import Disturbance, Request
from ops.tools.lab.servers import Server, serve

ROWS = 500  # rows to read in turn, again and again: if each read had a new row, the disk would be measured
WARM_SECONDS = (
    3  # of reads that do not count, after the server's start; at 200 a second, each row is read once
)
SETTLE_SECONDS = 1.0  # from the first bytes of a disturbance to the first read that counts
ALONE = "alone"


@dataclass(frozen=True, slots=True, kw_only=True)
class Disturbed:
    """One measurement: the reads' latencies, and the most memory that a process of the server has had, in bytes."""

    round: int
    name: str
    load: Load
    memory: int


def measure(
    contender: Contender,
    paths: Sequence[str],
    disturbances: Sequence[Disturbance],
    *,
    rate: int,
    rounds: int,
    seconds: int,
    output: Path,
    console: Console,
) -> list[Disturbed]:
    """Measure reads of `paths` in turn, `rate` a second, first alone and then beside each of the disturbances.

    `contender` starts anew for each measurement, with one worker.
    """
    stream = pacer.Stream([Request(path) for path in paths[:ROWS]], rate)
    found = []
    with silent() as address:
        for number in range(rounds):
            for each in (Disturbance(name=ALONE), *disturbances):
                environment = {k: v.format(silent=address) for k, v in each.environment.items()}
                own = replace(contender, environment={**contender.environment, **environment})
                with serve(own, 1, output, paths[0]) as server:
                    pacer.run(server.url, [stream], WARM_SECONDS, scratch=output)
                    with disturb(server, each):
                        load = pacer.run(server.url, [stream], seconds, scratch=output)
                    memory = most_memory(server.session)
                found.append(Disturbed(round=number + 1, name=each.name, load=load, memory=memory))
                console.print(
                    f"{number + 1:>3}  {each.name:<48} p50 {load.p50:>7.2f} ms   p99 {load.p99:>7.2f} ms   "
                    f"{load.faults}",
                    soft_wrap=True,
                )
    return found


@contextmanager
def silent() -> Iterator[str]:
    """Yield the URL of a listener that never answers. The system accepts its connections, as for a hung process."""
    with socket.create_server(("127.0.0.1", 0), backlog=1000) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"


@contextmanager
def disturb(server: Server, disturbance: Disturbance) -> Iterator[None]:
    """Start the clients of a disturbance, and stop them after the block, which begins once they have received bytes.

    Raises LabError if they get no answer, or end before the block does.
    """
    if not disturbance.clients:
        yield
        return
    command = [sys.executable, "-m", "ops.tools.lab.reader", server.url + disturbance.path]
    command += [str(disturbance.clients), str(disturbance.pace), disturbance.headers]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            if not process.stdout or not process.stdout.readline():
                raise LabError(f"{disturbance.name}: no answer")
            time.sleep(SETTLE_SECONDS)
            yield
            if process.poll() is not None:
                raise LabError(f"{disturbance.name}: its clients have ended")
        finally:
            process.kill()


def summarize(found: Sequence[Disturbed]) -> list[dict[str, Any]]:
    """Return, for each disturbance, the medians of all rounds, the range of p99, the most memory and all faults."""
    groups: dict[str, list[Disturbed]] = {}
    for each in found:
        groups.setdefault(each.name, []).append(each)
    return [
        {
            "name": name,
            "p50": median(each.load.p50 for each in own),
            "p99": median(each.load.p99 for each in own),
            "least_p99": min(each.load.p99 for each in own),
            "most_p99": max(each.load.p99 for each in own),
            "memory": max(each.memory for each in own),
            "faults": "; ".join(filter(None, (each.load.faults for each in own))),
        }
        for name, own in groups.items()
    ]


def report(
    found: Sequence[Disturbed], rate: int, conditions: dict[str, Any], output: Path, console: Console
) -> None:
    """Print a table, and write it with all measurements as JSON."""
    summary = summarize(found)
    table = Table(title=f"Reads at {rate} a second, one worker, beside what it does as well")
    table.add_column("beside")
    for title in ("p50 ms", "p99 ms", "least-most", "peak MB", "errors"):
        table.add_column(title, justify="right")
    for each in summary:
        table.add_row(
            each["name"],
            f"{each['p50']:.2f}",
            f"{each['p99']:.2f}",
            f"{each['least_p99']:.2f}-{each['most_p99']:.2f}",
            f"{each['memory'] / 1e6:.0f}" if each["memory"] else "",
            each["faults"],
        )
    console.print(table)
    results = output / "results.json"
    measurements = [asdict(each) for each in found]
    all_of_it = {"conditions": conditions, "rate": rate, "summary": summary, "measurements": measurements}
    results.write_text(json.dumps(all_of_it, indent=2) + "\n")
    console.print(f"All of it: {os.path.relpath(results)}", soft_wrap=True)
