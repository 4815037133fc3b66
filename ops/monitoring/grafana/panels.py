"""Panels, in the JSON that Grafana stores (its "dashboard JSON model").

Each but text() has a title, a description of its meaning and the remedy, queries by their legends, a unit, and a link
to the entry of docs/runbook.md that says more. A size is in columns of 24, and rows of some 36 pixels.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NotRequired, TypedDict, Unpack

from ops.monitoring.grafana import runbook

JSON = dict[str, Any]
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
GREEN, RED = "green", "red"
INSTANT = {"instant": True, "range": False}
NEWEST = {"reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False}}


class Common(TypedDict):
    """The arguments of every panel but text().

    `empty_when` says when the panel may have no data; a panel without it must have some (tests/e2e).
    """

    unit: str
    todo: str  # an alert with an entry in the runbook
    empty_when: NotRequired[str]


def timeseries(
    title: str,
    description: str,
    queries: Mapping[str, str],
    *,
    limit: float | None = None,
    stack: bool = False,
    size: tuple[int, int] = (12, 9),
    **common: Unpack[Common],
) -> JSON:
    """Return a panel of lines over time, or stacked areas. `limit` is a dashed line that they should stay below."""
    options = {
        "legend": {
            "displayMode": "table",
            "placement": "bottom",
            "showLegend": True,
            "calcs": ["lastNotNull", "max"],
        },
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    panel = _panel("timeseries", title, description, queries, size=size, options=options, **common)
    defaults = panel["fieldConfig"]["defaults"]
    defaults["min"] = 0
    defaults["custom"] = {
        "lineWidth": 1,
        "fillOpacity": 30 if stack else 5,
        "showPoints": "never",
        "stacking": {"mode": "normal" if stack else "none"},
        "thresholdsStyle": {"mode": "off" if limit is None else "dashed"},
    }
    if limit is not None:
        defaults["thresholds"] = _steps((GREEN, None), (RED, limit))
    return panel


def stat(
    title: str,
    description: str,
    expression: str,
    *,
    limit: float | None = None,
    least: float | None = None,
    instant: bool = False,
    size: tuple[int, int] = (4, 4),
    **common: Unpack[Common],
) -> JSON:
    """Return a panel of the newest value as a number: red from `limit` on, or below `least`.

    Behind the number is its course as a line, unless `instant`: a query over 30 days is too slow for each point.
    """
    steps: list[tuple[str, float | None]] = [(GREEN, None)]
    if limit is not None:
        steps = [(GREEN, None), (RED, limit)]
    elif least is not None:
        steps = [(RED, None), (GREEN, least)]
    options = NEWEST | {
        "colorMode": "value" if len(steps) > 1 else "none",
        "graphMode": "none" if instant else "area",
        "textMode": "value",
    }
    panel = _panel("stat", title, description, {title: expression}, size=size, options=options, **common)
    panel["fieldConfig"]["defaults"]["thresholds"] = _steps(*steps)
    if instant:
        panel["targets"][0] |= INSTANT
    return panel


def bargauge(
    title: str,
    description: str,
    queries: Mapping[str, str],
    *,
    limit: float,
    size: tuple[int, int] = (12, 9),
    **common: Unpack[Common],
) -> JSON:
    """Return a panel of the newest value of each series as a bar: red from `limit` on."""
    options = NEWEST | {"displayMode": "basic", "orientation": "horizontal"}
    panel = _panel("bargauge", title, description, queries, size=size, options=options, **common)
    panel["fieldConfig"]["defaults"] |= {"min": 0, "thresholds": _steps((GREEN, None), (RED, limit))}
    return panel


def heatmap(
    title: str,
    description: str,
    expression: str,
    *,
    size: tuple[int, int] = (12, 9),
    **common: Unpack[Common],
) -> JSON:
    """Return a panel of a histogram's buckets over time: the whole distribution, of which quantiles are points."""
    options = {
        "calculate": False,
        "yAxis": {"unit": common["unit"]},
        "cellGap": 1,
        "color": {"mode": "scheme", "scheme": "Oranges", "steps": 64},
        "filterValues": {"le": 1e-9},
        "tooltip": {"mode": "single", "yHistogram": False},
        "legend": {"show": True},
    }
    panel = _panel(
        "heatmap", title, description, {"{{le}}": expression}, size=size, options=options, **common
    )
    panel["targets"][0]["format"] = "heatmap"
    return panel


def table(
    title: str,
    description: str,
    expression: str,
    *,
    labels: Sequence[str],
    size: tuple[int, int] = (12, 9),
    **common: Unpack[Common],
) -> JSON:
    """Return a panel of the series that there are now: a row for each, with these `labels` as columns."""
    panel = _panel(
        "table", title, description, {"": expression}, size=size, options={"showHeader": True}, **common
    )
    panel["targets"][0] |= {"format": "table", **INSTANT}
    order = {label: index for index, label in enumerate(labels)}
    panel["transformations"] = [
        {"id": "filterFieldsByName", "options": {"include": {"names": list(labels)}}},
        {"id": "organize", "options": {"indexByName": order}},
    ]
    return panel


def text(title: str, markdown: str, *, size: tuple[int, int]) -> JSON:
    return {
        "type": "text",
        "title": title,
        "gridPos": _extent(size),
        "options": {"mode": "markdown", "content": markdown},
    }


def _panel(
    kind: str,
    title: str,
    description: str,
    queries: Mapping[str, str],
    *,
    size: tuple[int, int],
    options: JSON,
    **common: Unpack[Common],
) -> JSON:
    empty_when, todo = common.get("empty_when"), common["todo"]
    return {
        "type": kind,
        "title": title,
        "description": description + (f" Empty when {empty_when}." if empty_when else ""),
        "datasource": DATASOURCE,
        "gridPos": _extent(size),
        "targets": [
            {
                "refId": chr(ord("A") + index),
                "datasource": DATASOURCE,
                "editorMode": "code",
                "expr": expression,
                "legendFormat": legend,
                "range": True,
            }
            for index, (legend, expression) in enumerate(queries.items())
        ],
        "fieldConfig": {"defaults": {"unit": common["unit"]}, "overrides": []},
        "options": options,
        "links": [{"title": f"What to do: {todo}", "url": runbook.link(todo), "targetBlank": True}],
    }


def _extent(size: tuple[int, int]) -> JSON:
    return {"w": size[0], "h": size[1]}


def _steps(*steps: tuple[str, float | None]) -> JSON:
    return {"mode": "absolute", "steps": [{"color": color, "value": value} for color, value in steps]}
