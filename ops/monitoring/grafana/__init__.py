"""The dashboards, as code: `make dashboards` writes dashboards/*.json out of boards/*.py.

Standard library only, and nothing of the service: the panels need only the names of its metrics.
"""
