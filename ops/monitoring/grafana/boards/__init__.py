"""The contents of the dashboards, in one module for each."""

from ops.monitoring.grafana.boards import cache, latency_budget, postgres, redis, runbook, service, workers

BOARDS = tuple(module.BOARD for module in (service, latency_budget, cache, workers, postgres, redis, runbook))
