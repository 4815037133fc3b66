"""Runs of the laboratory as people start them, tiny ones, over products, the raw contender and the service."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
from django.db import connection

from ops.tools.lab import k6
from ops.tools.lab.contender import Contender
from ops.tools.lab.contenders.cached import CACHED
from ops.tools.lab.contenders.exporting import EXPORTING
from ops.tools.lab.contenders.uncached import UNCACHED
from ops.tools.lab.contenders.writing import BULK, CRUD, WRITING
from ops.tools.lab.exports import PSQL
from ops.tools.lab.failure import LabError
from ops.tools.lab.servers import ROOT, serve
from products.lab import DISTURBANCES, SCENARIOS

pytestmark = pytest.mark.django_db  # without it there is no test database, and `url` would be the real one's

PATIENCE = 60  # seconds; a deadline, not a wait
BRIEF = ("--rounds", "1", "--seconds", "1", "--warmup", "0", "--workers", "1")

KEPT = (
    "raw-constant",
    "sub10",
    "sub10-l1",
    "sub10-l2",
    "raw-redis",
)  # of the cached, those that the gate has

needs_wrk = pytest.mark.skipif(not shutil.which("wrk"), reason="wrk is not installed")


def has_k6() -> bool:
    with suppress(LabError):
        return bool(k6.executable())
    return False


@pytest.fixture
def url(products: None) -> str:
    """The URL of the database of tests."""
    name = str(connection.settings_dict["NAME"])
    assert name.startswith("test_")
    return urlsplit(os.environ["DATABASE_URL"])._replace(path=f"/{name}").geturl()


@contextmanager
def lab(url: str, output: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "ops.tools.lab", *arguments, "--output", str(output)],
        cwd=ROOT,
        env={**os.environ, "DATABASE_URL": url, "DJANGO_SETTINGS_MODULE": "config.settings"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with process:
        yield process
        process.kill()


def run(url: str, output: Path, *arguments: str) -> tuple[int, str]:
    with lab(url, output, *arguments) as process:
        text, _ = process.communicate(timeout=PATIENCE)
    return process.returncode, text


def left(directory: Path) -> list[str]:
    """The processes that still work in a directory."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (process / "cwd").readlink() == directory:
                found.append((process / "cmdline").read_text().replace("\0", " "))
    return found


@pytest.mark.parametrize("contenders", [UNCACHED, CACHED, WRITING, CRUD, BULK])
def test_names_are_unique(contenders: tuple[Contender, ...]) -> None:
    assert len({contender.name for contender in contenders}) == len(contenders)


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_service_keeps_no_pages_where_the_peers_keep_none(name: str) -> None:
    modes = {
        contender.name: contender.environment["PAGE_CACHE"]
        for contender in SCENARIOS[name].contenders
        if contender.name.startswith("sub10")
    }
    kept = {each: "l2" if each == "sub10-l2" else "on" for each in modes}
    none = {each: "on" if each == "sub10-cached" else "off" for each in modes}
    assert modes == (kept if name in ("cached100", "crud") else none)
    assert "sub10" in modes


@needs_wrk
@pytest.mark.parametrize("scenario", ["list10", "detail", "nested"])
def test_closed(url: str, tmp_path: Path, scenario: str) -> None:
    choice = ("--contenders", "raw,sub10", "--connections", "2")
    status, text = run(url, tmp_path, "closed", "--scenario", scenario, *choice, *BRIEF)
    assert status == 0, text
    results = json.loads((tmp_path / "results.json").read_text())
    assert [summary["target"] for summary in results["summary"]] == ["raw", "sub10"]
    assert all(summary["valid"] and summary["requests_per_second"] > 0 for summary in results["summary"])
    assert results["summary"][0]["ratio"] == 1
    assert left(tmp_path) == []


def stored(url: str) -> list[Any]:
    """All that a run must leave as it was."""
    with psycopg.connect(url) as database:
        rows = "SELECT count(*), sum(hashtextextended(p::text, 0)) FROM products_product AS p"
        following = "SELECT last_value >= (SELECT max(id) FROM products_product) FROM products_product_id_seq"
        keys = "SELECT count(*) FROM api_keys_apikey"
        return [database.execute(query).fetchone() for query in (rows, following, keys)]


@needs_wrk
@pytest.mark.parametrize("scenario", ["post", "patch", "delete", "crud"])
def test_writes(url: str, tmp_path: Path, scenario: str) -> None:
    before = stored(url)
    choice = ("--write", "--contenders", "raw,sub10", "--connections", "2")
    status, text = run(url, tmp_path, "closed", "--scenario", scenario, *choice, *BRIEF)
    assert status == 0, text
    results = json.loads((tmp_path / "results.json").read_text())
    assert [summary["target"] for summary in results["summary"]] == ["raw", "sub10"]
    assert all(summary["valid"] and summary["requests_per_second"] > 0 for summary in results["summary"]), (
        text
    )
    if scenario == "crud":
        assert [(summary["pairs"] > 5, summary["stale"]) for summary in results["summary"]] == [(True, 0)] * 2
    assert stored(url) == before


def test_reads_beside_writes(url: str, tmp_path: Path) -> None:
    before = stored(url)
    choice = (
        "--scenario",
        "mixed",
        "--write",
        "--contenders",
        "raw,sub10",
        "--rates",
        "50",
        "--writes",
        "20",
    )
    status, text = run(url, tmp_path, "open", *choice, *BRIEF)
    assert status == 0, text
    results = json.loads((tmp_path / "results.json").read_text())
    for summary in results["summary"]:
        assert summary["valid"], text
        assert summary["requests_per_second"] == pytest.approx(70, rel=0.1)
        assert summary["p99"] > 0
        assert summary["writes_p99"] > 0
    assert "20 writes/s beside the reads" in " ".join(text.split())
    assert stored(url) == before


@pytest.mark.skipif(not all(contender.versions for contender in BULK), reason="a contender is not installed")
def test_many_at_once(url: str, tmp_path: Path) -> None:
    before = stored(url)
    status, text = run(url, tmp_path, "bulk", "--write", "--rounds", "1")
    assert status == 0, text
    results = json.loads((tmp_path / "results.json").read_text())
    first = {summary["kind"]: summary["way"] for summary in reversed(results["summary"])}
    assert first == {"insert": "psycopg, COPY", "update": "psycopg, UPDATE ... FROM unnest"}
    assert stored(url) == before
    assert left(tmp_path) == []


@pytest.mark.skipif(
    not all(contender.versions for _, contender, _ in EXPORTING), reason="a contender is not installed"
)
def test_exports(url: str, tmp_path: Path) -> None:
    """The table has fewer rows than the larger sizes: each way then answers all of them."""
    status, text = run(url, tmp_path, "export", "--rounds", "1")
    assert status == 0, text
    summary = json.loads((tmp_path / "results.json").read_text())["summary"]
    ways = {each["way"] for each in summary}
    assert ways == {PSQL, *(way for way, _, _ in EXPORTING)}
    lines = {
        each["size"]
        for each in summary
        if each["rows"] == 1000 and each["way"] in (PSQL, "raw: psycopg's COPY")
    }
    assert len(lines) == 1
    assert all(each["memory"] and each["first"] for each in summary if each["way"] != PSQL)


def test_reads_beside_what_takes_much(url: str, tmp_path: Path) -> None:
    status, text = run(url, tmp_path, "disturbed", "--rounds", "1", "--seconds", "1", "--rate", "20")
    assert status == 0, text
    summary = json.loads((tmp_path / "results.json").read_text())["summary"]
    assert [each["name"] for each in summary] == ["alone", *(each.name for each in DISTURBANCES)]
    assert all(each["p99"] and each["memory"] and not each["faults"] for each in summary)
    assert left(tmp_path) == []


@needs_wrk
def test_a_stopped_run_leaves_no_rows_and_no_key(url: str, tmp_path: Path) -> None:
    before = stored(url)
    choice = ("--scenario", "post", "--write", "--contenders", "raw", "--seconds", "60", "--warmup", "1")
    with lab(url, tmp_path, "closed", *choice) as process:
        log = tmp_path / "requests.http"  # as the load begins
        deadline = time.monotonic() + PATIENCE
        while not log.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 143
    assert stored(url) == before
    assert left(tmp_path) == []


@needs_wrk
def test_scraped(url: str, tmp_path: Path) -> None:
    choice = ("--contenders", "sub10-scraped", "--connections", "2")
    status, text = run(url, tmp_path, "closed", *choice, *BRIEF, "--warmup", "3")
    assert status == 0, text
    scrapes = re.search(r"(\d+) scrapes answered", (tmp_path / "sub10-scraped.log").read_text())
    assert scrapes
    assert int(scrapes[1]) > 5  # of ten in the measured second
    assert left(tmp_path) == []


@needs_wrk
def test_depth(url: str, tmp_path: Path) -> None:
    status, text = run(url, tmp_path, "closed", "--scenario", "depth", "--connections", "2", *BRIEF)
    assert status == 0, text
    results = json.loads((tmp_path / "results.json").read_text())
    assert [summary["target"] for summary in results["summary"]] == [
        "sub10, 0 rows deep",
        "sub10, 9,700 rows deep",
    ]


@needs_wrk
@pytest.mark.parametrize(
    "contender",
    [
        *KEPT,
        pytest.param(
            "nginx-file",
            marks=pytest.mark.skipif(not shutil.which("nginx"), reason="nginx is not installed"),
        ),
    ],
)
def test_cached(url: str, tmp_path: Path, contender: str) -> None:
    choice = ("--scenario", "cached100", "--contenders", contender, "--connections", "2")
    status, text = run(url, tmp_path, "closed", *choice, *BRIEF)
    assert status == 0, text
    results = json.loads((tmp_path / "results.json").read_text())
    assert [(summary["target"], summary["valid"]) for summary in results["summary"]] == [(contender, True)]
    assert left(tmp_path) == []


def test_a_high_rate_is_the_pacers(url: str, tmp_path: Path) -> None:
    choice = ("--scenario", "cached100", "--contenders", "raw-constant", "--rates", f"20,{k6.MOST + 1}")
    status, text = run(url, tmp_path, "open", *choice, *BRIEF)
    assert status == 0, text
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["plan"]["generator"] == "pacer"
    assert [summary["rate"] for summary in results["summary"]] == [20, k6.MOST + 1]
    assert results["summary"][0]["requests_per_second"] == pytest.approx(20, rel=0.1)


@pytest.mark.skipif(not has_k6(), reason="k6 is not installed")
def test_open(url: str, tmp_path: Path) -> None:
    status, text = run(url, tmp_path, "open", "--contenders", "raw,sub10", "--rates", "20,40", *BRIEF)
    assert status == 0, text
    results = json.loads((tmp_path / "results.json").read_text())
    assert [(summary["target"], summary["rate"]) for summary in results["summary"]] == [
        *(("raw", 20), ("sub10", 20)),
        *(("raw", 40), ("sub10", 40)),
    ]
    assert results["summary"][2]["requests_per_second"] == pytest.approx(40, rel=0.1)


@needs_wrk
@pytest.mark.parametrize("missing", ["DATABASE_URL", "REDIS_URL"])
def test_a_server_that_is_not_named(
    url: str, tmp_path: Path, missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(missing, "")
    named = "" if missing == "DATABASE_URL" else url
    status, text = run(named, tmp_path, "closed", "--scenario", "cached100", "--contenders", "raw-redis")
    assert (status, text) == (1, f"{missing} is missing from the environment\n")


@needs_wrk
@pytest.mark.parametrize(("sent", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_run_leaves_nothing_behind(
    url: str, tmp_path: Path, sent: signal.Signals, status: int
) -> None:
    with lab(url, tmp_path, "closed", "--contenders", "raw", "--seconds", "60", "--warmup", "0") as process:
        assert process.stdout
        for line in process.stdout:
            if "rounds of 1 targets" in line:
                break
        process.send_signal(sent)
        assert process.wait(PATIENCE) == status
    assert left(tmp_path) == []


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("closed", "--contenders", "raw,sub10", "--beside", "/dev"), "/dev is no checkout of the service"),
        (
            ("closed", "--contenders", "raw,rails"),
            "list100 has no contender rails; it has raw, raw-pipelined",
        ),
        (
            ("closed", "--scenario", "depth", "--contenders", "raw"),
            "depth has no contender raw; it has sub10",
        ),
        (
            ("closed", "--contenders", "raw-redis"),
            "list100 has no contender raw-redis; it has raw, raw-pipelined",
        ),
        (("closed", "--seconds", "301"), "must be from 1 to 300"),
        (
            ("closed", "--scenario", "post"),
            "post writes, and the database of DATABASE_URL is only read without --write",
        ),
        (("bulk",), "bulk writes, and the database of DATABASE_URL is only read without --write"),
        (("closed", "--scenario", "bulk"), "invalid choice: 'bulk'"),
        (("closed", "--scenario", "mixed", "--write"), "mixed has reads and writes at rates of their own"),
    ],
)
@needs_wrk
def test_what_cannot_be_done(url: str, tmp_path: Path, arguments: tuple[str, ...], complaint: str) -> None:
    status, text = run(url, tmp_path, *arguments)
    assert status != 0
    assert complaint in text
    assert "Traceback" not in text


def test_a_contender_that_ends_says_why(tmp_path: Path) -> None:
    broken = Contender(
        name="broken",
        summary="",
        command=("{python}", "-c", "import sys; print('no port', {port}); sys.exit(3)"),
        packages=(),
    )
    with (
        pytest.raises(LabError, match=r"broken ended with status 3.*\nno port 55\d+"),
        serve(broken, 1, tmp_path, "/"),
    ):
        pass
