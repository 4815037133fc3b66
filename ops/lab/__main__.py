"""`python -m ops.lab`: see docs/lab.md."""

import argparse
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
from rich.console import Console
from rich.table import Table

from ops import cpus
from ops.lab import k6, wrk
from ops.lab.conditions import conditions, redis_information
from ops.lab.contender import Contender
from ops.lab.contenders.cached import CACHED
from ops.lab.contenders.uncached import UNCACHED
from ops.lab.cpu import postmaster, redis_process
from ops.lab.failure import LabError
from ops.lab.measurement import summarize
from ops.lab.report import write
from ops.lab.rounds import Plan, measure, verify
from ops.lab.scenarios import SCENARIOS, connect
from ops.lab.servers import ROOT

DEFAULT_WORKERS = int(2 * cpus.available()) + 1  # the service's own
console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for; an error is one text on stderr, and status 1."""
    options = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # as an exception, so that servers are stopped
    try:
        options.command(options)
    except LabError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("Stopped.\n")
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ops.lab",
        description="Measure the service beside its peers: each is started on loopback, verified against the rows "
        "of DATABASE_URL, and measured in interleaved rounds. Results go to .local/lab/.",
        epilog="A run uses all cores: let nothing else work on the machine meanwhile.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    listing = commands.add_parser("list", help="show contenders and scenarios")
    listing.set_defaults(command=_list)

    closed = commands.add_parser(
        "closed",
        help="requests a second, by wrk: each connection asks again as soon as it has its answer",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    _add_common(closed, workers=2)
    closed.add_argument("--connections", type=_between(1, 1000), default=32, help="wrk's connections")
    closed.set_defaults(command=_closed)

    opened = commands.add_parser(
        "open",
        help="latency at a constant rate, by k6 or the pacer: requests are due however slow the answers are",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    _add_common(opened, workers=DEFAULT_WORKERS)
    opened.add_argument(
        "--rates",
        type=_rates,
        default=[1000, 1500],
        metavar="RATE,...",
        help=f"requests a second; by the pacer, if one is above {k6.MOST:,}",
    )
    opened.set_defaults(command=_open)
    return parser


def _add_common(parser: argparse.ArgumentParser, *, workers: int) -> None:
    parser.add_argument("--scenario", choices=SCENARIOS, default="list100", help="what is asked for")
    parser.add_argument(
        "--contenders",
        type=lambda text: text.split(","),
        metavar="NAME,...",
        help="who is measured; ratios are to the first (all that are installed)",
    )
    parser.add_argument("--rounds", type=_between(1, 100), default=5, help="how often each is measured")
    parser.add_argument("--seconds", type=_between(1, 300), default=5, help="length of a measurement")
    parser.add_argument("--warmup", type=_between(0, 60), default=2, help="seconds of load before each")
    parser.add_argument(
        "--output", type=Path, help="directory for results, chart and logs (a new one in .local/lab)"
    )
    parser.add_argument(
        "--workers", type=_between(1, 64), default=workers, help="processes of each contender"
    )


def _between(least: int, most: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"must be from {least} to {most}")
        return int(text)

    return number


def _rates(text: str) -> list[int]:
    return [_between(1, 100_000)(rate) for rate in text.split(",")]


def _list(_options: argparse.Namespace) -> None:
    scenarios = Table("scenario", "what is asked for")
    for name, scenario in SCENARIOS.items():
        scenarios.add_row(name, scenario.summary)
    console.print(scenarios)
    for contenders in (UNCACHED, CACHED):
        names = [name for name, scenario in SCENARIOS.items() if scenario.contenders is contenders]
        table = Table("contender", "what it is", "versions", title=f"Contenders of {', '.join(names)}")
        for contender in contenders:
            table.add_row(contender.name, contender.summary, contender.versions or "not installed")
        console.print(table)


def _closed(options: argparse.Namespace) -> None:
    wrk.executable()
    _run(options, rates=[None], connections=options.connections)


def _open(options: argparse.Namespace) -> None:
    if max(options.rates) <= k6.MOST:
        k6.executable()
    _run(options, rates=options.rates, connections=0)


def _run(options: argparse.Namespace, *, rates: Sequence[int | None], connections: int) -> None:
    scenario = SCENARIOS[options.scenario]
    contenders = _chosen(options.contenders, options.scenario)
    cache = _redis(contenders)
    try:
        database = connect(_environment("DATABASE_URL"))
    except psycopg.OperationalError as error:
        raise LabError(f"DATABASE_URL: {str(error).strip()}") from None
    with closing(database):
        found = conditions(database, cache)
        questions = scenario.questions(database)
        postgres = postmaster(database.info.backend_pid)
    plan = Plan(
        scenario=options.scenario,
        contenders=contenders,
        rates=rates,
        rounds=options.rounds,
        seconds=options.seconds,
        warmup=options.warmup,
        workers=options.workers,
        connections=connections,
        output=_directory(options.output, options.scenario),
        postgres=postgres,
        redis=redis_process(cache["process_id"]) if cache else 0,
    )
    targets = verify(plan, questions, console)
    seconds = plan.estimate(len(targets))
    console.print(
        f"{plan.rounds} rounds of {len(targets)} targets: about {seconds // 60} min {seconds % 60} s"
    )
    measurements = measure(plan, targets, console)
    write(plan, measurements, summarize(measurements), found, console)


def _chosen(names: list[str] | None, scenario: str) -> list[Contender]:
    """Those that were named, in that order, or all of the scenario's that are installed."""
    known = {contender.name: contender for contender in SCENARIOS[scenario].contenders}
    if unknown := [name for name in names or () if name not in known]:
        raise LabError(f"{scenario} has no contender {', '.join(unknown)}; it has {', '.join(known)}")
    chosen = [known[name] for name in names or known]
    if missing := [contender.name for contender in chosen if contender.versions is None]:
        if names:
            raise LabError(f"not installed: {', '.join(missing)} (docs/lab.md)")
        console.print(f"[yellow]Left out, not installed (docs/lab.md): {', '.join(missing)}[/yellow]")
    return [contender for contender in chosen if contender.versions]


def _redis(contenders: list[Contender]) -> dict[str, Any] | None:
    """What Redis says of itself, if one of them needs it."""
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
