"""A real Prometheus, with the repository's own configuration and rules, pointed at what a test runs."""

import math
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import yaml

from ops.monitoring.prometheus.__main__ import HERE
from tests.service import PATIENCE

SCRAPE = "500ms"  # so that two scrapes, which a rate needs, are seen soon


@dataclass
class Prometheus:
    client: httpx.Client

    def values(self, query: str) -> list[float]:
        """What the query answers now. NaN, as of a quantile of nothing, is no answer."""
        answer = self.client.get("/api/v1/query", params={"query": query}).json()
        assert answer["status"] == "success", (query, answer)
        samples = answer["data"]["result"]
        return [value for sample in samples if not math.isnan(value := float(sample["value"][1]))]

    def answers(self, queries: Mapping[str, str]) -> None:
        """Fail unless each of these has had data within PATIENCE."""
        deadline = time.monotonic() + PATIENCE
        left = dict(queries)
        while left := {name: query for name, query in left.items() if not self.values(query)}:
            assert time.monotonic() < deadline, "no data:\n" + "\n".join(map(": ".join, left.items()))
            time.sleep(0.2)

    def understands(self, queries: Mapping[str, str]) -> None:
        """Fail unless these are queries, whether they have data or not, and every rule can be evaluated."""
        for query in queries.values():
            self.values(query)
        groups = self.client.get("/api/v1/rules").json()["data"]["groups"]
        assert [rule for group in groups for rule in group["rules"] if rule.get("lastError")] == []


@contextmanager
def prometheus(directory: Path, **targets: str) -> Iterator[Prometheus]:
    """Scrape the jobs that have a target here, and itself, until the block ends."""
    own = f"127.0.0.1:{free_port()}"
    configuration = yaml.safe_load((HERE / "prometheus.yml").read_text())
    configuration["global"] |= {
        "scrape_interval": SCRAPE,
        "scrape_timeout": SCRAPE,
        "evaluation_interval": SCRAPE,
    }
    configuration["rule_files"] = [str(HERE / pattern) for pattern in configuration["rule_files"]]
    targets = {"prometheus": own, **targets}
    jobs = [job for job in configuration["scrape_configs"] if job["job_name"] in targets]
    assert len(jobs) == len(targets)
    for job in jobs:
        job.pop("scrape_interval", None)
        job["static_configs"] = [{"targets": [targets[job["job_name"]]]}]
    configuration["scrape_configs"] = jobs
    (directory / "prometheus.yml").write_text(yaml.safe_dump(configuration))
    arguments = (
        f"--config.file={directory / 'prometheus.yml'}",
        f"--storage.tsdb.path={directory / 'data'}",
        f"--web.listen-address={own}",
    )
    with (
        program(["prometheus", *arguments], directory / "prometheus.log", {}),
        httpx.Client(base_url=f"http://{own}", timeout=PATIENCE) as client,
    ):
        wait_until_answered(f"http://{own}/-/ready", directory / "prometheus.log")
        yield Prometheus(client)


@contextmanager
def program(command: Sequence[str], log: Path, environment: Mapping[str, str]) -> Iterator[None]:
    """Run a program until the block ends."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env={**environment}, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL
        )
    try:
        yield
    finally:
        process.terminate()
        process.wait(PATIENCE)


def wait_until_answered(url: str, log: Path) -> None:
    """Wait until a program answers there."""
    deadline = time.monotonic() + PATIENCE
    while True:
        assert time.monotonic() < deadline, log.read_text()
        with suppress(httpx.TransportError):
            if httpx.get(url).is_success:
                return
        time.sleep(0.05)


def free_port() -> int:
    """A port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
