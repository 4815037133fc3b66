"""What Prometheus is told: the scrape configuration, the rules and their unit tests. See docs/runbook.md."""
