"""How the checks speak: the setting with its value, then what to do, then where to read why."""

from django.core.checks import CheckMessage, Error, Warning  # noqa: A004  Django's name

Messages = list[CheckMessage]


def error(number: str, message: str, hint: str) -> Error:
    """What does not work, or answers wrongly."""
    return Error(message, hint=f"{hint} More: docs/checks.md.", id=f"ops.E{number}")


def warning(number: str, message: str, hint: str) -> Warning:
    """What works, and costs."""
    return Warning(message, hint=f"{hint} More: docs/checks.md.", id=f"ops.W{number}")
