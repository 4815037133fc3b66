"""The dashboards, as code: `make dashboards` writes dashboards/*.json out of boards/*.py.

Standard library only, and nothing of the service: what the panels need of it are the names of its metrics.
"""
