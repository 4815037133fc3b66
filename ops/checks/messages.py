"""The messages of the checks: the setting with its value, then the remedy, then a page with the reason."""

from django.core.checks import CheckMessage, Error, Warning  # noqa: A004  Django's name

Messages = list[CheckMessage]


def error(number: str, message: str, hint: str) -> Error:
    """A message that something does not work, or answers wrongly."""
    return Error(message, hint=f"{hint} More: docs/checks.md.", id=f"ops.E{number}")


def warning(number: str, message: str, hint: str) -> Warning:
    """A message that something works, at a cost."""
    return Warning(message, hint=f"{hint} More: docs/checks.md.", id=f"ops.W{number}")
