"""docs/runbook.md as a dashboard, to which the panels of other dashboards can link."""

from ops.monitoring.grafana.dashboard import Dashboard
from ops.monitoring.grafana.panels import text
from ops.monitoring.grafana.runbook import UID, entries

BOARD = Dashboard(
    uid=UID,
    title="Runbook",
    description="docs/runbook.md: what each alert means, how to see it, what to do first, what usually causes it.",
    rows={"Alerts": [text(alert, body, size=(12, 12)) for alert, body in entries().items()]},
)
