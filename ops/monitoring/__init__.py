"""Assets for operators: rules, dashboards, configuration of containers."""
