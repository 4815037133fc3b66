"""System checks of things that cost milliseconds, one module for each subject. docs/checks.md has them in a table.

`manage.py check --tag performance` reads settings and routes; with `--database default` it asks Postgres, too,
and with `--deploy` it also runs the checks for production.
"""

TAG = "performance"
