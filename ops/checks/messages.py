"""How the checks speak: the setting with its value, then the remedy, then a page with the reason."""

from django.core.checks import CheckMessage, Error, Warning  # noqa: A004  Django's name

Messages = list[CheckMessage]


def error(number: str, message: str, hint: str) -> Error:
    """Something does not work, or answers wrongly."""
    return Error(message, hint=f"{hint} More: docs/checks.md.", id=f"ops.E{number}")


def warning(number: str, message: str, hint: str) -> Warning:
    """Something works, and costs."""
    return Warning(message, hint=f"{hint} More: docs/checks.md.", id=f"ops.W{number}")
