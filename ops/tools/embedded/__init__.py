"""A private Postgres and Valkey from PyPI wheels, and the commands of the Makefile that use them.

For development and tests only: a machine with nothing but make and Python can run and test the service on the real
servers. The package runs before .venv exists, so it imports no other package from PyPI, and nothing of config, api or
a resource.
"""
