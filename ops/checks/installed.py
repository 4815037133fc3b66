"""Checks for applications and modes that have no place in a fast service."""

from typing import Any

from django.apps import apps
from django.conf import settings

from ops.checks.messages import Messages, warning

PROFILERS = ("silk", "debug_toolbar")


def check_rest_framework(**_kwargs: Any) -> Messages:
    """Check that Ninja is used instead of Django REST framework."""
    if not apps.is_installed("rest_framework"):
        return []
    return [
        warning(
            "030",
            "INSTALLED_APPS has 'rest_framework': its views are sync, and its serialisers build an object a field.",
            "Write the endpoints with Ninja, as README.md shows, and let Postgres write the JSON.",
        )
    ]


def check_profilers(**_kwargs: Any) -> Messages:
    """Check that there is no profiler outside development."""
    return [
        warning(
            "031",
            f"INSTALLED_APPS has {name!r} while DEBUG is False: it records every request, most to the database.",
            "Unset PROFILE, unless this is the hour in which you look at it.",
        )
        for name in PROFILERS
        if apps.is_installed(name) and not settings.DEBUG
    ]


def check_debug(**_kwargs: Any) -> Messages:
    """Check that DEBUG is off. It runs with --deploy only, since DEBUG is right in development."""
    if not settings.DEBUG:
        return []
    return [
        warning(
            "032",
            "DEBUG is True: Django keeps the text and time of every query in memory.",
            "Unset DEBUG in production.",
        )
    ]
