"""The results of a run: a table to read, a JSON file to compute with, a chart to show."""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from ops.tools.lab.cpu import CORES
from ops.tools.lab.measurement import Measurement, Summary
from ops.tools.lab.rounds import Plan

# If other processes take more than this part of all cores, figures are not to be trusted.
NOISY = 0.05


def table(plan: Plan, summaries: Sequence[Summary], conditions: dict[str, Any]) -> Table:
    """Return a table of the medians, with ratios to the first contender."""
    found = Table(
        title=f"{plan.scenario}: {plan.summary}",
        caption=f"Medians of {plan.rounds} rounds of {plan.seconds} s, {plan.loop}, {plan.workers} workers each; "
        f"{conditions['rows']:,} rows, Postgres {conditions['postgres']}, Python {conditions['python']}. CPU us: "
        f"what a request took of the contender, Postgres and Redis; CPU %: parts of all {CORES} cores that the "
        "contender, Postgres, Redis, the load generator and everything else took.",
    )
    found.add_column("contender")
    columns = _closed_columns if plan.closed else _open_columns
    rows = [columns(summary) for summary in summaries]
    for title in rows[0]:
        found.add_column(title, justify="right", no_wrap=True)
    for summary, cells in zip(summaries, rows, strict=True):
        faults = f"\n[red]invalid: {summary.faults}[/red]" if summary.faults else ""
        found.add_row(f"{summary.name}{faults}", *cells.values())
    return found


def _closed_columns(summary: Summary) -> dict[str, str]:
    return {
        "req/s": f"{summary.requests_per_second:,.0f}",
        "ratio": f"{summary.ratio:.2f}",
        "least-most": f"{summary.least:,.0f}-{summary.most:,.0f}",
        "p50 ms": f"{summary.p50:.2f}",
        "p99 ms": f"{summary.p99:.2f}",
        **({"stale": f"{summary.stale} of {summary.pairs:,}"} if summary.pairs else {}),
        "CPU us": _number(summary.cost, "{:.0f}"),
        "CPU %": _shares(summary),
    }


def _open_columns(summary: Summary) -> dict[str, str]:
    writes = {}
    if summary.writes_p99 is not None:  # then the other latencies are those of the reads
        writes = {
            "writes' p50 ms": _number(summary.writes_p50, "{:.2f}"),
            "writes' p99 ms": _number(summary.writes_p99, "{:.2f}"),
        }
    return {
        "req/s": f"{summary.requests_per_second:,.0f}",
        "p50 ms": f"{summary.p50:.2f}",
        "p95 ms": _number(summary.p95, "{:.2f}"),
        "p99 ms": f"{summary.p99:.2f}",
        "ratio": f"{summary.p99_ratio:.2f}",
        **writes,
        "CPU us": _number(summary.cost, "{:.0f}"),
        "CPU %": _shares(summary),
    }


def _shares(summary: Summary) -> str:
    cpu = summary.cpu
    shares = (cpu.server, cpu.postgres, cpu.redis, cpu.generator, cpu.others)
    return " ".join(_number(share and share * 100, "{:.0f}") for share in shares)


def _number(value: float | None, spelling: str) -> str:
    return "?" if value is None else spelling.format(value)


def write(
    plan: Plan,
    measurements: Sequence[Measurement],
    summaries: Sequence[Summary],
    conditions: dict[str, Any],
    console: Console,
) -> None:
    """Print the table, write it with all measurements as JSON, and draw a chart if matplotlib is installed."""
    console.print(table(plan, summaries, conditions))
    noise = max((m.cpu.others for m in measurements if m.cpu.others is not None), default=0.0)
    if noise > NOISY:
        console.print(
            f"[yellow]Other processes took up to {noise:.0%} of the CPU: repeat it in a quiet hour.[/]"
        )
    contenders = {
        contender.name: {
            "summary": contender.summary,
            "versions": contender.versions,
            "command": " ".join(contender.command),
            "environment": " ".join(f"{name}={value!r}" for name, value in contender.environment.items()),
        }
        for contender in plan.contenders
    }
    details = asdict(plan) | {
        "contenders": contenders,
        "generator": plan.generator,
        "output": plan.output.name,
    }
    found = {
        "conditions": conditions,
        "plan": details,
        "summary": [asdict(summary) | {"valid": not summary.faults} for summary in summaries],
        "measurements": [asdict(measurement) for measurement in measurements],
    }
    results = plan.output / "results.json"
    results.write_text(json.dumps(found, indent=2) + "\n")
    console.print(f"All of it: {os.path.relpath(results)}", soft_wrap=True)
    if find_spec("matplotlib"):
        picture = plan.output / "chart.png"
        chart(plan, summaries, picture)
        console.print(f"The chart: {os.path.relpath(picture)}", soft_wrap=True)
    else:
        console.print("No chart: matplotlib is not installed (requirements/lab.txt).")


def chart(plan: Plan, summaries: Sequence[Summary], path: Path) -> None:
    """Draw a bar for each summary: requests a second with their range in a closed loop, p99 in an open one."""
    from matplotlib.figure import Figure  # noqa: PLC0415  only the lab group has it

    names = [s.name for s in summaries]
    figure = Figure(figsize=(9, 1.2 + 0.42 * len(names)), layout="constrained")
    axes = figure.subplots()
    if plan.closed:
        values = [s.requests_per_second for s in summaries]
        below = [s.requests_per_second - s.least for s in summaries]
        above = [s.most - s.requests_per_second for s in summaries]
        bars = axes.barh(names, values, xerr=[below, above], capsize=3)
        axes.set_xlabel(
            "requests a second: medians, with the least and the most; the ratio is written beside"
        )
    else:
        bars = axes.barh(names, [s.p99 for s in summaries])
        axes.set_xlabel("p99, milliseconds (median of rounds)")
    axes.bar_label(bars, [f"{s.ratio:.2f}" if plan.closed else f"{s.p99:.2f}" for s in summaries], padding=8)
    axes.invert_yaxis()
    axes.set_title(f"{plan.summary}; {plan.workers} workers, {plan.rounds} rounds")
    figure.savefig(path, dpi=140)
