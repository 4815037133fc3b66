"""`make chaos`: the promises of docs/reliability.md as tests, and a table with the figures that they have measured.

    @pytest.mark.chaos("worker SIGKILL")
    def test_a_worker_is_killed(figures: Figures) -> None:
        \"""Its successor answers within 2 s.\"""     # the promise: the first paragraph
        ...
        figures("replaced after", 0.8, "s", most=2)

A figure beyond its bound fails no test, since it depends on the machine; the table says that the promise was not
kept, and `make chaos` then exits with 1. CHAOS=long, which `make chaos` sets, makes faults last as long as the
promises say, and runs the tests that are `long=True`; `make test` has the short ones. A run of some of the tests
(`ARGS="-k redis"`) shows its rows, and leaves the table in .local/chaos as it is.
"""

import inspect
import os
import platform
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from _pytest.terminal import TerminalReporter

from ops import project
from ops.tools.embedded.paths import LOCAL, postgres_program, valkey_program

LONG = os.environ.get("CHAOS") == "long"
FILE = LOCAL / "chaos/table.md"
FAULTS = (  # in the order of the table; a marker names one of them
    "overload 1, 2, 5, 10, 20 x capacity",
    "Postgres immediate restart under load",
    "Postgres down 130 s",
    "Postgres SIGSTOP 30 s; connections reset; half-open; +200 ms",
    "max_connections used up by others; role read-only",
    "Redis SIGKILL, SIGSTOP, OOM, READONLY, corrupt, reset, back",
    "lock on the table, 10 x pool requests",
    "worker SIGKILL",
    "SIGTERM, HUP, handover under keep-alive load",
    "4 x 500 clients abort mid-query",
    "1,000 slowloris sockets",
    "more sockets than the file limit",
    "200 MB header, 300 MB body, 10 MB of pipelined requests",
    "h2c upgrade with body; smuggling shapes",
    "hostile input list",
    "API key: missing, wrong, revoked, expired, near miss",
    "cache poisoning: unkeyed inputs and spellings",
)
Figures = Callable[..., None]


@dataclass
class Figure:
    """A value that a test has measured, and its bounds."""

    name: str
    value: float
    unit: str = ""
    most: float | None = None
    least: float | None = None

    @property
    def is_kept(self) -> bool:
        return (self.most is None or self.value <= self.most) and (
            self.least is None or self.value >= self.least
        )

    def __str__(self) -> str:
        sides = {"at most": self.most, "at least": self.least}
        bounds = [f"{side} {bound:,g}" for side, bound in sides.items() if bound is not None]
        value = f"{self.value:,.0f}" if abs(self.value) >= 100 else f"{self.value:.3g}"
        return f"{self.name}: {value} {self.unit}".rstrip() + (f" ({bounds[0]})" if bounds else "")


@pytest.fixture
def figures(request: pytest.FixtureRequest) -> Figures:
    """Note what has been measured: figures("back after", 1.2, "s", most=3).

    Of the cases of a parametrised test, the table has the worst: the greatest, or with `least` the least.
    """

    def note(name: str, value: float, unit: str = "", **bounds: float) -> None:
        request.node.user_properties.append(("figure", asdict(Figure(name, value, unit, **bounds))))

    return note


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("markexpr") == "chaos" and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Table(), "chaos-table")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for mark in item.iter_markers("chaos"):
            function = getattr(item, "function", None)
            if mark.args[0] not in FAULTS:
                raise pytest.UsageError(f"{item.nodeid}: {mark.args[0]!r} is none of tests/chaos.py's FAULTS")
            promise = " ".join((inspect.getdoc(function) or "").partition("\n\n")[0].split())
            if not promise:
                raise pytest.UsageError(f"{item.nodeid}: its docstring is to say what is promised")
            item.user_properties.append(("chaos", (mark.args[0], promise)))
            if mark.kwargs.get("long") and not LONG:
                item.add_marker(pytest.mark.skip(reason="`make chaos` runs it"))


@dataclass
class Row:
    """A promise, and what became of the tests that it is."""

    figures: dict[str, Figure] = field(default_factory=dict)
    passed: int = 0
    failed: int = 0
    skipped: set[str] = field(default_factory=set)

    def add(self, figure: Figure) -> None:
        known = self.figures.setdefault(figure.name, figure)
        worse = figure.value < known.value if figure.least is not None else figure.value > known.value
        if worse:
            self.figures[figure.name] = figure

    @property
    def missed(self) -> list[str]:
        """What was promised and is not so."""
        failed = [f"{self.failed} of {self.failed + self.passed} tests failed"] if self.failed else []
        return failed + [str(figure) for figure in self.figures.values() if not figure.is_kept]

    @property
    def verdict(self) -> str:
        if self.failed:
            return f"**no**: {self.missed[0]}"
        if self.missed:
            return "**no**"
        if not self.passed:
            return f"not run: {'; '.join(sorted(self.skipped)) or 'no test'}"
        return "yes"


class Table:
    """Collects the reports, also those of xdist's workers."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str], Row] = {}
        self.text = ""
        self.is_whole = False  # whether all promises were tested

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        told: list[tuple[str, Any]] = report.user_properties
        for promise in (tuple(value) for name, value in told if name == "chaos"):
            row = self.rows.setdefault(promise, Row())
            if report.failed:
                row.failed += 1
            elif report.skipped:
                row.skipped.add(str(report.longrepr[2]) if isinstance(report.longrepr, tuple) else "skipped")
            elif report.when == "call":
                row.passed += 1
            if report.when == "call":
                for value in (value for name, value in told if name == "figure"):
                    row.add(Figure(**value))

    def lines(self) -> Iterator[str]:
        yield "| fault | promise | figure | kept? |"
        yield "| --- | --- | --- | --- |"
        for fault in FAULTS:
            rows = {promise: row for (of, promise), row in self.rows.items() if of == fault}
            for number, (promise, row) in enumerate(rows.items()):
                measured = (
                    "; ".join(map(str, row.figures.values()))
                    or f"{(cases := row.passed + row.failed)} case{'' if cases == 1 else 's'}"
                )
                cells = ("" if number else fault, promise, measured, row.verdict)
                yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        self.text = "\n".join([facts(), "", *self.lines()]) + "\n"
        self.is_whole = {fault for fault, _ in self.rows} == {*FAULTS}
        if self.is_whole:
            FILE.parent.mkdir(parents=True, exist_ok=True)
            FILE.write_text(self.text)
        if not exitstatus and any(row.missed for row in self.rows.values()):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: TerminalReporter) -> None:
        terminalreporter.section("chaos")
        terminalreporter.write_line(self.text)
        terminalreporter.write_line(
            f"in {FILE}" if self.is_whole else "Some of the tests: no table is written."
        )
        for (fault, promise), row in self.rows.items():
            for missed in row.missed:
                terminalreporter.write_line(f"NOT KEPT: {fault}: {promise} {missed}")


def facts() -> str:
    """The machine, the versions and the command."""
    gibibytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    cpu = Path("/proc/cpuinfo")
    models = [line.partition(": ")[2] for line in cpu.read_text().splitlines() if "model name" in line]
    machine = f"{os.cpu_count()} cores ({(models or [platform.machine()])[0]}), {gibibytes:.0f} GiB"
    servers = [
        subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout.split()
        for program in (postgres_program("postgres"), valkey_program())
    ]
    postgres, valkey = servers[0][2], next(word[2:] for word in servers[1] if word.startswith("v="))
    return (
        f"`make chaos`{'' if LONG else ', short'}: {machine}, {platform.system()}; load generator, "
        f"Postgres and Valkey on the same cores. {project.NAME} {project.VERSION}, "
        f"Python {platform.python_version()}, Django {version('django')}, uvicorn {version('uvicorn')}, "
        f"Postgres {postgres}, Valkey {valkey}."
    )
