"""Checks of Django's middleware: every request passes all of it, so none of it may leave the event loop."""

from typing import Any

from django.conf import settings
from django.utils.deprecation import MiddlewareMixin
from django.utils.module_loading import import_string

from ops.checks.messages import Messages, warning

HOOKS = ("process_request", "process_response")


def check_sync_middleware(**_kwargs: Any) -> Messages:
    """Check that each middleware can run in the event loop."""
    return [
        warning(
            "020",
            f"MIDDLEWARE has {path!r}, which is sync only: every request goes to a thread for it and back.",
            "Write it async, or as a layer in config/asgi.py (docs/layers.md).",
        )
        for path, middleware in _middleware()
        if not getattr(middleware, "async_capable", False)
    ]


def check_middleware_mixin(**_kwargs: Any) -> Messages:
    """Check that none is a MiddlewareMixin with hooks: it is async in name only, and each hook runs in a thread."""
    return [
        warning(
            "021",
            f"MIDDLEWARE has {path!r}, whose sync {' and '.join(hooks)} cost every request a thread hop each.",
            "Write it async, or as a layer in config/asgi.py (docs/layers.md). "
            "Sessions, messages and CSRF serve pages, not an API.",
        )
        for path, middleware in _middleware()
        if isinstance(middleware, type) and issubclass(middleware, MiddlewareMixin)
        if (hooks := [hook for hook in HOOKS if hasattr(middleware, hook)])
    ]


def _middleware() -> list[tuple[str, Any]]:
    return [(path, import_string(path)) for path in settings.MIDDLEWARE]
