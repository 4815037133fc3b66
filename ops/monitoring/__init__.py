"""Assets of operators: rules, dashboards, configuration of containers."""
