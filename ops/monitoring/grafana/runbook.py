"""docs/runbook.md, one entry an alert, and where Grafana shows it.

Grafana knows no address of this repository, and each clone has another one. So it has the runbook as a
dashboard, with a panel for each entry that the other panels link to.
"""

import re
from pathlib import Path

from ops.project import NAME

UID = f"{NAME}-runbook"
ROOT = Path(__file__).parents[3]


def entries() -> dict[str, str]:
    """The text of each entry by the alert's name, in the document's order."""
    _, *parts = re.split(r"^## (\w+)\n", (ROOT / "docs/runbook.md").read_text(), flags=re.MULTILINE)
    return {alert: body.strip() for alert, body in zip(parts[::2], parts[1::2], strict=True)}


def link(alert: str) -> str:
    """The entry's own panel: one row heads the dashboard, so panels are numbered from 2."""
    return f"/d/{UID}?viewPanel={list(entries()).index(alert) + 2}"
