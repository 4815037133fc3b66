"""`python -m ops.tools.lab`: see docs/lab.md."""

import argparse
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from ops.machine import concurrency
from ops.tools.lab import bulk, disturbed, exports, k6, wrk
from ops.tools.lab.conditions import conditions, redis_information
from ops.tools.lab.contender import Contender
from ops.tools.lab.cpu import postmaster, redis_process
from ops.tools.lab.failure import LabError
from ops.tools.lab.measurement import summarize
from ops.tools.lab.report import write
from ops.tools.lab.rounds import Plan, measure, verify
from ops.tools.lab.scenarios import Connection, Scenario, connect, find
from ops.tools.lab.servers import ROOT
from ops.tools.lab.writer import Writer, opened

DEFAULT_WORKERS = concurrency.workers()  # the service's own
console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line, and return the exit status. A LabError is one text on stderr, with status 1."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # as an exception, so that servers are stopped
    try:
        options = _parser(find()).parse_args(arguments)
        options.command(options)
    except LabError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("Stopped.\n")
        return 130
    return 0


def _parser(scenarios: dict[str, Scenario]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ops.tools.lab",
        description="Measure the service beside its peers: each is started on loopback, verified against the rows "
        "of DATABASE_URL, and measured in interleaved rounds. Results go to .local/lab/.",
        epilog="A run uses all cores: let nothing else work on the machine meanwhile.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    listing = commands.add_parser("list", help="show contenders and scenarios")
    listing.set_defaults(command=_list, scenarios=scenarios)

    closed = commands.add_parser(
        "closed",
        help="requests a second, by wrk: each connection asks again as soon as it has its answer",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    _add_common(closed, scenarios, workers=2)
    closed.add_argument(
        "--connections", type=_between(1, 1000), help="wrk's connections (32, or the scenario's own)"
    )
    closed.set_defaults(command=_closed)

    paced = commands.add_parser(
        "open",
        help="latency at a constant rate, by k6 or the pacer: requests are due however slow the answers are",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    _add_common(paced, scenarios, workers=DEFAULT_WORKERS)
    paced.add_argument(
        "--rates",
        type=_rates,
        default=[1000, 1500],
        metavar="RATE,...",
        help=f"requests a second; by the pacer, if one is above {k6.MOST:,}",
    )
    paced.add_argument(
        "--writes",
        type=_between(1, 10_000),
        default=200,
        help="writes a second beside the reads, where a scenario has both apart",
    )
    paced.set_defaults(command=_open)

    many = commands.add_parser(
        "bulk",
        help="milliseconds for many rows at once, by each way to write them, alone",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    _add_scenario(many, {name: scenario for name, scenario in scenarios.items() if scenario.ways}, rounds=10)
    many.set_defaults(command=_bulk)

    whole = commands.add_parser(
        "export",
        help="seconds, first byte, size and memory of 1,000 to 1,000,000 rows, by each way to export them, alone",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    _add_scenario(
        whole, {name: scenario for name, scenario in scenarios.items() if scenario.exports}, rounds=3
    )
    whole.set_defaults(command=_export)

    beside = commands.add_parser(
        "disturbed",
        help="latency of reads at a constant rate by one worker, alone and beside exports, slow clients and the like",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    _add_scenario(
        beside, {name: scenario for name, scenario in scenarios.items() if scenario.disturbances}, rounds=3
    )
    beside.add_argument("--rate", type=_between(1, 10_000), default=200, help="reads a second")
    beside.add_argument("--seconds", type=_between(1, 300), default=10, help="length of a measurement")
    beside.set_defaults(command=_disturbed)
    return parser


def _add_common(parser: argparse.ArgumentParser, scenarios: dict[str, Scenario], *, workers: int) -> None:
    alone = {
        name: scenario for name, scenario in scenarios.items() if not scenario.ways and not scenario.exports
    }
    _add_scenario(parser, alone, rounds=5)
    parser.add_argument(
        "--contenders",
        type=lambda text: text.split(","),
        metavar="NAME,...",
        help="who is measured; ratios are to the first (all that are installed)",
    )
    parser.add_argument(
        "--beside",
        type=Path,
        metavar="DIRECTORY",
        help="another checkout: the service is measured in it as well, to compare two revisions in one run",
    )
    parser.add_argument("--seconds", type=_between(1, 300), default=5, help="length of a measurement")
    parser.add_argument("--warmup", type=_between(0, 60), default=2, help="seconds of load before each")
    parser.add_argument(
        "--workers", type=_between(1, 64), default=workers, help="processes of each contender"
    )


def _add_scenario(parser: argparse.ArgumentParser, scenarios: dict[str, Scenario], *, rounds: int) -> None:
    parser.set_defaults(scenarios=scenarios)
    parser.add_argument("--rounds", type=_between(1, 100), default=rounds, help="how often each is measured")
    parser.add_argument(
        "--scenario", choices=scenarios, default=next(iter(scenarios), None), help="what is asked for"
    )
    parser.add_argument(
        "--write",
        action="store_true",
        help="let a scenario that writes do so in the database of DATABASE_URL: its rows are gone afterwards",
    )
    parser.add_argument(
        "--output", type=Path, help="directory for results, chart and logs (a new one in .local/lab)"
    )


def _between(least: int, most: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"must be from {least} to {most}")
        return int(text)

    return number


def _rates(text: str) -> list[int]:
    return [_between(1, 100_000)(rate) for rate in text.split(",")]


def _list(options: argparse.Namespace) -> None:
    shown = Table("scenario", "what is asked for")
    for name, scenario in options.scenarios.items():
        shown.add_row(name, scenario.summary)
    console.print(shown)
    for contenders in {
        id(scenario.contenders): scenario.contenders for scenario in options.scenarios.values()
    }.values():
        names = [name for name, scenario in options.scenarios.items() if scenario.contenders is contenders]
        table = Table("contender", "what it is", "versions", title=f"Contenders of {', '.join(names)}")
        for contender in contenders:
            table.add_row(contender.name, contender.summary, contender.versions or "not installed")
        console.print(table)


def _closed(options: argparse.Namespace) -> None:
    wrk.executable()
    scenario: Scenario = options.scenarios[options.scenario]
    if scenario.writing and scenario.writing.reads:
        raise LabError(f"{options.scenario} has reads and writes at rates of their own: measure it by open")
    _run(options, rates=[None], connections=options.connections or scenario.connections)


def _open(options: argparse.Namespace) -> None:
    scenario: Scenario = options.scenarios[options.scenario]
    if max(options.rates) <= k6.MOST and not scenario.writing:
        k6.executable()
    writes = options.writes if scenario.writing and scenario.writing.reads else 0
    _run(options, rates=options.rates, connections=0, writes=writes)


def _run(
    options: argparse.Namespace, *, rates: Sequence[int | None], connections: int, writes: int = 0
) -> None:
    scenario: Scenario = options.scenarios[options.scenario]
    _check_write(options, scenario)
    contenders = _chosen(options.contenders, options.scenario, scenario.contenders)
    if options.beside:
        contenders = [each for one in contenders for each in (one, *_beside(one, options.beside))]
    cache = _redis(contenders)
    with ExitStack() as stack:
        database, writer = _opened(options, scenario, stack)
        if writer:
            contenders = [_knowing(writer.digest, contender) for contender in contenders]
        plan = Plan(
            scenario=options.scenario,
            summary=scenario.summary,
            contenders=contenders,
            rates=rates,
            rounds=options.rounds,
            seconds=options.seconds,
            warmup=options.warmup,
            workers=options.workers,
            connections=connections,
            output=_directory(options.output, options.scenario),
            postgres=postmaster(database.info.backend_pid),
            redis=redis_process(cache["process_id"]) if cache else 0,
            is_writing=bool(writer),
            writes=writes,
        )
        found = conditions(database, scenario.table, cache)
        targets = verify(plan, scenario.questions(database), console, writer)
        seconds = plan.estimate(len(targets))
        console.print(
            f"{plan.rounds} rounds of {len(targets)} targets: about {seconds // 60} min {seconds % 60} s"
        )
        measurements = measure(plan, targets, console, writer)
    write(plan, measurements, summarize(measurements), found, console)


def _bulk(options: argparse.Namespace) -> None:
    if not options.scenario:
        raise LabError("There is nothing to measure: no scenario has ways to write many rows (docs/lab.md)")
    scenario: Scenario = options.scenarios[options.scenario]
    _check_write(options, scenario)
    all_of_them = [contender.name for contender in scenario.contenders]
    contenders = _chosen(all_of_them, options.scenario, scenario.contenders)
    cache, output = _redis(contenders), _directory(options.output, options.scenario)
    with ExitStack() as stack:
        database, writer = _opened(options, scenario, stack)
        if writer is None:
            raise LabError(f"{options.scenario} has nothing to write")
        found = conditions(database, scenario.table, cache)
        contenders = [_knowing(writer.digest, contender) for contender in contenders]
        path = scenario.questions(database)[0].paths[0]
        measured = bulk.measure(scenario.ways, contenders, path, writer, rounds=options.rounds, output=output)
    bulk.report(measured, found, output, console)


def _export(options: argparse.Namespace) -> None:
    if not options.scenario:
        raise LabError("There is nothing to measure: no scenario has ways to export rows (docs/lab.md)")
    scenario: Scenario = options.scenarios[options.scenario]
    cache, output = _redis([*scenario.contenders]), _directory(options.output, options.scenario)
    with closing(connect(_environment("DATABASE_URL"))) as database:
        found = conditions(database, scenario.table, cache)
    installed = {contender.name for contender in _chosen(None, options.scenario, scenario.contenders)}
    ways = [way for way in scenario.exports if way[1].name in installed]
    measured = exports.measure(ways, scenario.copy, rounds=options.rounds, output=output, console=console)
    exports.report(measured, found, output, console)


def _disturbed(options: argparse.Namespace) -> None:
    if not options.scenario:
        raise LabError("There is nothing to measure: no scenario has disturbances (docs/lab.md)")
    scenario: Scenario = options.scenarios[options.scenario]
    service = next(contender for contender in scenario.contenders if contender.at_root)
    output = _directory(options.output, "disturbed")
    with closing(connect(_environment("DATABASE_URL"))) as database:
        found = conditions(database, scenario.table, None)
        paths = scenario.questions(database)[0].paths
    measured = disturbed.measure(
        service,
        paths,
        scenario.disturbances,
        rate=options.rate,
        rounds=options.rounds,
        seconds=options.seconds,
        output=output,
        console=console,
    )
    disturbed.report(measured, options.rate, found, output, console)


def _check_write(options: argparse.Namespace, scenario: Scenario) -> None:
    if scenario.writing and not options.write:
        raise LabError(
            f"{options.scenario} writes, and the database of DATABASE_URL is only read without --write"
        )


def _opened(
    options: argparse.Namespace, scenario: Scenario, stack: ExitStack
) -> tuple[Connection, Writer | None]:
    """Return a connection that only reads, and the writer if the scenario writes; `stack` closes both."""
    url = _environment("DATABASE_URL")
    database = stack.enter_context(closing(connect(url)))
    if scenario.writing is None:
        return database, None
    return database, stack.enter_context(opened(url, database, scenario.writing))


def _knowing(digest: str, contender: Contender) -> Contender:
    """Return the contender with the SHA-256 of the run's API key in its environment."""
    return replace(contender, environment={**contender.environment, "API_KEY_SHA256": digest})


def _chosen(names: list[str] | None, scenario: str, contenders: tuple[Contender, ...]) -> list[Contender]:
    """Return the contenders with these `names`, in this order, or all installed ones of the scenario if it is None.

    Raises LabError if the scenario has no contender of a name, or if it is not installed.
    """
    known = {contender.name: contender for contender in contenders}
    if unknown := [name for name in names or () if name not in known]:
        raise LabError(f"{scenario} has no contender {', '.join(unknown)}; it has {', '.join(known)}")
    chosen = [known[name] for name in names or known]
    if missing := [contender.name for contender in chosen if contender.versions is None]:
        if names:
            raise LabError(f"not installed: {', '.join(missing)} (docs/lab.md)")
        console.print(f"[yellow]Left out, not installed (docs/lab.md): {', '.join(missing)}[/yellow]")
    return [contender for contender in chosen if contender.versions]


def _beside(contender: Contender, checkout: Path) -> list[Contender]:
    """Return the contender as it is in `checkout`, or an empty list if it is not the service.

    Raises LabError if `checkout` is no checkout of the service.
    """
    if not contender.at_root:
        return []
    if not (checkout / "gunicorn.conf.py").is_file():
        raise LabError(f"{checkout} is no checkout of the service")
    root = checkout.resolve()
    return [replace(contender, name=f"{contender.name}@{root.name}", root=root)]


def _redis(contenders: list[Contender]) -> dict[str, Any] | None:
    """Return Redis's own information if a contender needs Redis, else None."""
    if not any(contender.redis for contender in contenders):
        return None
    return redis_information(_environment("REDIS_URL"))


def _directory(asked: Path | None, scenario: str) -> Path:
    directory = asked or ROOT / ".local" / "lab" / f"{time.strftime('%Y%m%d-%H%M%S')}-{scenario}"
    directory.mkdir(parents=True, exist_ok=True)
    return directory.resolve()


def _environment(name: str) -> str:
    value = os.environ.get(name)
    if not value:
        raise LabError(f"{name} is missing from the environment")
    return value


if __name__ == "__main__":
    sys.exit(main())
