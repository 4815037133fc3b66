"""A private Postgres and Valkey from PyPI wheels, and the commands of the Makefile that use them.

For development and tests only: it lets a machine with nothing but make and Python run and test the service on the
real servers. Standard library only, and nothing of config, api or a resource, because it runs before .venv exists.
"""
