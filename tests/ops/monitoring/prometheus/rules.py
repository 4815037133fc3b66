"""The rules, as Prometheus reads them."""

from typing import Any

import yaml

from ops.monitoring.prometheus.__main__ import HERE

RULES: list[dict[str, Any]] = [
    rule
    for path in sorted(HERE.glob("rules/*.yml"))
    for group in yaml.safe_load(path.read_text())["groups"]
    for rule in group["rules"]
]
ALERTS = {rule["alert"]: rule for rule in RULES if "alert" in rule}
BUDGET = {
    rule["labels"]["stage"]: float(rule["expr"].removeprefix("vector(").removesuffix(")"))
    for rule in RULES
    if rule.get("record") == "stage:latency_budget:seconds"
}
