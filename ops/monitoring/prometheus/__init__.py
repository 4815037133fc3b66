"""The files of Prometheus: the scrape configuration, the rules and their unit tests. See docs/runbook.md."""
