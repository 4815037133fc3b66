"""Writes of many rows at once: each way is timed alone, one after the other, round after round."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from ops.tools.lab.contender import Contender
from ops.tools.lab.failure import LabError
from ops.tools.lab.scenarios import CHECKED
from ops.tools.lab.servers import ROOT, serve
from ops.tools.lab.writer import Writer

ITEMS = 1000  # rows that a way writes at once
PATIENCE = 60  # seconds for a round

Measured = dict[str, Any]  # with the keys kind, way and ms


def measure(
    module: str, contenders: Sequence[Contender], path: str, writer: Writer, *, rounds: int, output: Path
) -> list[Measured]:
    """Run `module`, which times the ways, and return its measurements. Raises LabError if it fails.

    Some ways ask the `contenders`, which run meanwhile; each is up once it answers at `path`.
    """
    with ExitStack() as stack:
        services = {
            contender.name: stack.enter_context(serve(contender, 1, output, path)).url
            for contender in contenders
        }
        requests = stack.enter_context(writer.rows(2 * ITEMS))[CHECKED:]
        plan = {
            "rounds": rounds,
            "bodies": [json.loads(r.body) for r in requests if r.method == "POST"][:ITEMS],
            "ids": [int(r.path.rpartition("/")[2]) for r in requests if r.method == "PATCH"][:ITEMS],
            "services": services,
            "key": writer.key,
        }
        file = output / "bulk.json"
        file.write_text(json.dumps(plan))
        try:
            done = subprocess.run(
                [sys.executable, "-m", module, str(file)],
                cwd=output,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                capture_output=True,
                text=True,
                timeout=PATIENCE * (rounds + 1),
                check=False,
            )
        finally:
            file.unlink()  # the file has the API key
    if done.returncode:
        raise LabError(f"{module} failed:\n{done.stderr.strip()[-2000:]}")
    return [json.loads(line) for line in done.stdout.splitlines()]


def summarize(measured: Sequence[Measured]) -> list[Measured]:
    """Return medians by kind and way. The ratio is the median of the rounds' ratios to the first way of the kind."""
    groups: dict[tuple[str, str], list[float]] = {}
    for each in measured:
        groups.setdefault((each["kind"], each["way"]), []).append(each["ms"])
    first = {kind: times for (kind, _), times in reversed(groups.items())}
    return [
        {
            "kind": kind,
            "way": way,
            "ms": median(times),
            "least": min(times),
            "most": max(times),
            "ratio": median(own / other for own, other in zip(times, first[kind], strict=True)),
        }
        for (kind, way), times in groups.items()
    ]


def report(measured: list[Measured], conditions: dict[str, Any], output: Path, console: Console) -> None:
    """Print a table for each kind, and write all tables and measurements as JSON."""
    summary = summarize(measured)
    for kind in dict.fromkeys(each["kind"] for each in summary):
        table = Table(title=f"{kind} of {ITEMS:,} rows", caption=f"Postgres: {conditions['commits']}")
        table.add_column("way")
        for title in ("ms", "least-most", "ratio"):
            table.add_column(title, justify="right", no_wrap=True)
        for each in summary:
            if each["kind"] == kind:
                span = f"{each['least']:.1f}-{each['most']:.1f}"
                table.add_row(each["way"], f"{each['ms']:.1f}", span, f"{each['ratio']:.2f}")
        console.print(table)
    results = output / "results.json"
    found = {"conditions": conditions, "summary": summary, "measurements": measured}
    results.write_text(json.dumps(found, indent=2) + "\n")
    console.print(f"All of it: {os.path.relpath(results)}", soft_wrap=True)
