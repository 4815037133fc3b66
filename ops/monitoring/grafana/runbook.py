"""The entries of docs/runbook.md, one for each alert, and their addresses in Grafana.

Grafana knows no address of this repository, and each clone has another address. So Grafana has the runbook as a
dashboard: a panel for each entry, to which the other panels link.
"""

import re
from pathlib import Path

from ops.project import NAME

UID = f"{NAME}-runbook"
ROOT = Path(__file__).parents[3]


def entries() -> dict[str, str]:
    """Return the text of each entry by the alert's name, in the document's order."""
    _, *parts = re.split(r"^## (\w+)\n", (ROOT / "docs/runbook.md").read_text(), flags=re.MULTILINE)
    return {alert: body.strip() for alert, body in zip(parts[::2], parts[1::2], strict=True)}


def link(alert: str) -> str:
    """Return the address of an entry's panel. A row heads the dashboard, so panels are numbered from 2."""
    return f"/d/{UID}?viewPanel={list(entries()).index(alert) + 2}"
