"""A dashboard: rows of panels, laid out from left to right, and the variables and links of every dashboard."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ops.monitoring.grafana.panels import DATASOURCE, JSON
from ops.project import NAME

TAG = NAME
COLUMNS = 24  # of Grafana's grid


@dataclass(frozen=True, kw_only=True)
class Dashboard:
    """Rows of panels under their titles. `by_route` adds the variable `$route`, by which users choose routes."""

    uid: str
    title: str
    description: str
    rows: Mapping[str, Sequence[JSON]]
    by_route: bool = False

    def json(self) -> JSON:
        """Return the dashboard as Grafana stores it, with a number and a place for each panel."""
        placed: list[JSON] = []  # each panel with its number and place
        top = 0
        for title, panels in self.rows.items():
            place = {"x": 0, "y": top, "w": COLUMNS, "h": 1}
            placed.append(
                {"id": len(placed) + 1, "type": "row", "title": title, "gridPos": place, "panels": []}
            )
            top, left, tallest = top + 1, 0, 0
            for panel in panels:
                size = panel["gridPos"]
                if left + size["w"] > COLUMNS:
                    top, left, tallest = top + tallest, 0, 0
                placed.append(panel | {"id": len(placed) + 1, "gridPos": {"x": left, "y": top, **size}})
                left, tallest = left + size["w"], max(tallest, size["h"])
            top += tallest
        return {
            "uid": self.uid,
            "title": self.title,
            "description": self.description,
            "tags": [TAG],
            "schemaVersion": 39,  # Grafana 10.4; newer ones migrate it
            "timezone": "browser",
            "time": {"from": "now-1h", "to": "now"},
            "refresh": "10s",  # two scrapes
            "graphTooltip": 1,  # a crosshair through all panels
            "templating": {"list": [SOURCE, ROUTE] if self.by_route else [SOURCE]},
            "annotations": {"list": [ALERTS]},
            "links": [OTHERS],
            "panels": placed,
        }


SOURCE = {
    "name": "datasource",
    "label": "Data source",
    "type": "datasource",
    "query": "prometheus",
    "current": {"text": "Prometheus", "value": "prometheus"},
}
ROUTE = {
    "name": "route",
    "label": "Route",
    "type": "query",
    "datasource": DATASOURCE,
    "query": {"qryType": 1, "query": "label_values(http_requests_total, route)", "refId": "route"},
    "refresh": 2,  # whenever the time range changes
    "sort": 1,
    "multi": True,
    "includeAll": True,
    "allValue": ".*",
    "current": {"text": ["All"], "value": ["$__all"]},
}
ALERTS = {
    "name": "Alerts",
    "datasource": DATASOURCE,
    "enable": True,
    "iconColor": "red",
    "expr": 'ALERTS{alertstate="firing"}',
    "titleFormat": "{{alertname}}",
    "textFormat": "{{route}}{{stage}}{{pool}}{{slo}}",
}
OTHERS = {"title": "Dashboards", "type": "dashboards", "tags": [TAG], "includeVars": True, "keepTime": True}
