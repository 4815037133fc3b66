"""DATABASE_URL as an entry of Django's DATABASES."""

import os
from typing import Any

from psycopg.conninfo import conninfo_to_dict


def database(**settings: Any) -> dict[str, Any]:
    """Return the entry, with these further `settings`."""
    parts = conninfo_to_dict(os.environ["DATABASE_URL"])
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": parts.get("dbname", ""),
        "USER": parts.get("user", ""),
        "PASSWORD": parts.get("password", ""),
        "HOST": parts.get("host", ""),
        "PORT": parts.get("port", ""),
        **settings,
    }
