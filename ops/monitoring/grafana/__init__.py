"""The dashboards, as code: `make dashboards` writes dashboards/*.json out of boards/*.py.

The package imports the standard library and the service's name only: panels need no more than names of metrics.
"""
