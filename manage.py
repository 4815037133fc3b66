#!/usr/bin/env python
"""Django's command line: `manage.py help`."""

import os
import sys
import traceback

from django.conf import settings
from django.core.management import execute_from_command_line
from django.db import OperationalError


def main() -> None:
    """Run a command. If it cannot connect to Postgres, print one line; every other error keeps its traceback."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    # A command connects without a pool, which would try again until its time-out, and then not say why. Checks read
    # POOL.
    for database in settings.DATABASES.values():
        database["POOL"] = database.get("OPTIONS", {}).pop("pool", None)
    try:
        execute_from_command_line(sys.argv)
    except OperationalError as error:
        if "get_new_connection" not in (frame.name for frame in traceback.extract_tb(error.__traceback__)):
            raise
        host = settings.DATABASES["default"]["HOST"]
        sys.exit(f"DATABASE_URL: no connection to {host}: {' '.join(str(error).split())}")


if __name__ == "__main__":
    main()
