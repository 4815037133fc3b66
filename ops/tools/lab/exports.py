"""Exports of many rows: one client measures one way after the other, alone, in each size, round after round.

The first way is psql, which writes the same lines to a file. The other ways are compared with it.
"""

import http.client
import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from ops.tools.embedded.paths import postgres_program
from ops.tools.lab.contender import Contender
from ops.tools.lab.cpu import most_memory
from ops.tools.lab.failure import LabError
from ops.tools.lab.servers import Server, serve

SIZES = (1_000, 10_000, 100_000, 1_000_000)
SLOW_SECONDS = 60.0  # a size for which a way would take longer is left out, and so are larger sizes
PATIENCE_SECONDS = 300  # for an export by psql, and for each read by HTTP
PIECE_BYTES = 256 * 1024
PSQL = "psql, COPY to a file"


class Export(NamedTuple):
    """The measurement of one export."""

    way: str
    rows: int
    seconds: float
    first: float  # seconds until the first byte
    size: int  # bytes
    memory: int  # the most that a process of the contender has had so far, in bytes
    round: int = 0


def measure(
    ways: Sequence[tuple[str, Contender, str]], copy: str, *, rounds: int, output: Path, console: Console
) -> list[Export]:
    """Measure psql and all `ways` in all sizes. Raises LabError for an error, or for a wrong number of rows.

    A way has a name, a contender and a path; `copy` is psql's statement. `{}` in both is the number of rows.
    """
    found = []
    for number in range(rounds):
        for way, contender, path in [(PSQL, None, ""), *ways]:
            for export in (
                _psql(copy, output) if contender is None else _by_http(way, contender, path, output)
            ):
                found.append(export._replace(round=number))
                console.print(
                    f"{number + 1:>3}  {way:<34} {export.rows:>9,} rows   {export.seconds:>7.2f} s",
                    soft_wrap=True,
                )
    return found


def _psql(copy: str, output: Path) -> Iterator[Export]:
    file = output / "psql.ndjson"
    variables = {**os.environ, "PGOPTIONS": "-c TimeZone=UTC"}
    for rows in SIZES:
        query = " ".join(copy.format(rows).split())
        began = perf_counter()
        with file.open("wb") as target:
            command = [
                str(postgres_program("psql")),
                "--quiet",
                "--command",
                query,
                os.environ["DATABASE_URL"],
            ]
            subprocess.run(command, stdout=target, env=variables, check=True, timeout=PATIENCE_SECONDS)
        yield Export(PSQL, rows, perf_counter() - began, 0.0, file.stat().st_size, 0)
    file.unlink()


def _by_http(way: str, contender: Contender, path: str, output: Path) -> Iterator[Export]:
    """Start the contender, and yield its measurement for each size, until the next one seems too slow."""
    with serve(contender, 1, output, path.format(1)) as server:
        took = 0.0
        for rows, before in zip(SIZES, (1, *SIZES), strict=False):
            if took * rows / before > SLOW_SECONDS:
                return
            export = _fetch(way, server, path, rows)
            took = export.seconds
            yield export


def _fetch(way: str, server: Server, path: str, rows: int) -> Export:
    """Measure one export by HTTP, and count its rows in the smallest size."""
    with closing(
        http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE_SECONDS)
    ) as connection:
        connection.connect()
        began = perf_counter()
        connection.request("GET", path.format(rows))
        answer = connection.getresponse()
        pieces = [answer.read(1)]
        first = perf_counter() - began
        size = 1
        while piece := answer.read(PIECE_BYTES):
            size += len(piece)
            if rows == SIZES[0]:
                pieces.append(piece)
        seconds = perf_counter() - began
    if answer.status != http.HTTPStatus.OK:
        raise LabError(f"{way} answers {answer.status}")
    if rows == SIZES[0] and (found := _rows_of(b"".join(pieces))) != rows:
        raise LabError(f"{way} answers {found} rows instead of {rows}")
    return Export(way, rows, seconds, first, size, most_memory(server.session))


def _rows_of(content: bytes) -> int:
    """Return the number of rows in lines of JSON, CSV, a JSON list, or an object with a list for each column."""
    with suppress(ValueError):
        found = json.loads(content)
        return len(found if isinstance(found, list) else next(iter(found.values())))
    lines = content.splitlines()
    return len(lines) - (not lines[0].startswith(b"{"))  # CSV has a line of names


def summarize(found: Sequence[Export]) -> list[dict[str, Any]]:
    """Return medians by way and size. The ratio is the median of the rounds' ratios to psql's time."""
    groups: dict[tuple[str, int], list[Export]] = {}
    for export in found:
        groups.setdefault((export.way, export.rows), []).append(export)
    psql = {(export.rows, export.round): export.seconds for export in found if export.way == PSQL}
    return [
        {
            "way": way,
            "rows": rows,
            "seconds": median(each.seconds for each in exports),
            "first": median(each.first for each in exports),
            "size": exports[0].size,
            "memory": max(each.memory for each in exports),
            "ratio": median(own.seconds / psql[rows, own.round] for own in exports),
        }
        for (way, rows), exports in groups.items()
    ]


def report(found: Sequence[Export], conditions: dict[str, Any], output: Path, console: Console) -> None:
    """Print a table for each size, and write all tables and measurements as JSON."""
    summary = summarize(found)
    for rows in SIZES:
        table = Table(title=f"Export of {rows:,} rows")
        table.add_column("way")
        for title in ("seconds", "ratio", "first byte ms", "MB", "peak MB"):
            table.add_column(title, justify="right", no_wrap=True)
        for each in summary:
            if each["rows"] == rows:
                table.add_row(
                    each["way"],
                    f"{each['seconds']:.3f}",
                    f"{each['ratio']:.2f}",
                    f"{each['first'] * 1e3:.1f}" if each["first"] else "",
                    f"{each['size'] / 1e6:.2f}",
                    f"{each['memory'] / 1e6:.0f}" if each["memory"] else "",
                )
        console.print(table)
    results = output / "results.json"
    all_of_it = {
        "conditions": conditions,
        "summary": summary,
        "measurements": [each._asdict() for each in found],
    }
    results.write_text(json.dumps(all_of_it, indent=2) + "\n")
    console.print(f"All of it: {os.path.relpath(results)}", soft_wrap=True)
