"""The dashboards in the repository: up to date, and each panel says what it shows and what to do."""

import json
from typing import Any

import pytest
import yaml

from ops.monitoring.grafana.__main__ import HERE, files
from ops.monitoring.grafana.boards import latency_budget
from ops.monitoring.grafana.runbook import UID, entries
from ops.project import NAME
from tests.ops.monitoring.prometheus.rules import BUDGET

BOARDS: dict[str, dict[str, Any]] = {path.stem: json.loads(path.read_text()) for path in HERE.glob("*.json")}
PANELS = [
    pytest.param(panel, id=f"{board['title']} / {panel['title']}")
    for board in BOARDS.values()
    for panel in board["panels"]
    if panel["type"] not in ("row", "text")
]


def test_regenerating_changes_nothing() -> None:
    """Else: `make dashboards`."""
    assert files() == {path.name: path.read_text() for path in HERE.glob("*.json")}


def test_the_dashboards_keep_their_addresses() -> None:
    expected = {"service", "latency-budget", "cache", "workers", "postgres", "redis", "runbook"}
    assert {board["uid"] for board in BOARDS.values()} == {f"{NAME}-{name}" for name in expected}


@pytest.mark.parametrize("panel", PANELS)
def test_a_panel_says_what_it_shows(panel: dict[str, Any]) -> None:
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["type"] == "table" or all(target["legendFormat"] for target in panel["targets"])


@pytest.mark.parametrize("panel", PANELS)
def test_a_panel_links_to_its_entry_of_the_runbook(panel: dict[str, Any]) -> None:
    (link,) = panel["links"]
    address, number = link["url"].split("?viewPanel=")
    (entry,) = [each for each in BOARDS["runbook"]["panels"] if each["id"] == int(number)]
    assert address == f"/d/{UID}"
    assert link["title"] == f"What to do: {entry['title']}"
    assert entry["options"]["content"] == entries()[entry["title"]]


@pytest.mark.parametrize("name", sorted(BOARDS))
def test_panels_do_not_overlap(name: str) -> None:
    taken = [
        (x, y)
        for panel in BOARDS[name]["panels"]
        for at in [panel["gridPos"]]
        for x in range(at["x"], at["x"] + at["w"])
        for y in range(at["y"], at["y"] + at["h"])
    ]
    assert len(taken) == len(set(taken))
    assert max(x for x, _ in taken) < 24


def test_the_lines_of_the_stages_are_the_limits_that_alert() -> None:
    assert latency_budget.LIMITS == BUDGET


def test_the_source_of_the_data_is_the_one_that_the_dashboards_begin_with() -> None:
    provisioning = HERE.parent / "provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources/prometheus.yaml").read_text())["datasources"]
    scrapes = yaml.safe_load((HERE.parents[1] / "prometheus/prometheus.yml").read_text())["scrape_configs"]
    assert source["jsonData"]["timeInterval"] == next(
        each["scrape_interval"] for each in scrapes if each["job_name"] == "api"
    )
    for board in BOARDS.values():
        assert board["templating"]["list"][0]["current"] == {"text": source["name"], "value": source["uid"]}
