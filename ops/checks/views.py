"""The views of the URL configuration: none of the API's may leave the event loop, or read without a bound."""

import inspect
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from asgiref.sync import iscoroutinefunction
from django.conf import settings
from django.urls import URLPattern, URLResolver, get_resolver
from ninja.operation import Operation, PathView

from ops.checks.messages import Messages, warning

View = Callable[..., Any]

# Pages for people, which may be sync: the admin and whatever else comes with Django, Ninja's documentation, the
# profilers. A project adds modules of its own in settings.SYNC_VIEWS. Everything else is the API.
PAGES = ("django.", "ninja.openapi.", "silk.", "debug_toolbar.")
SKIPS = {"offset", "page"}  # parameters by which a list reads rows only to skip them


def check_views(**_kwargs: Any) -> Messages:
    """The API's views are async, each of Ninja's operations for itself."""
    pages = (*PAGES, *getattr(settings, "SYNC_VIEWS", ()))
    return [
        warning(
            "010",
            f"The view {name} of {route!r} is sync: each request hops to a thread and back.",
            "Make it async and read through ops.postgres.pool or the ORM's a-methods. Where its module serves "
            "pages for people, name the module in SYNC_VIEWS.",
        )
        for route, function, is_async in _views()
        if not is_async and not (name := _name(function)).startswith(pages)
    ]


def check_pagination(**_kwargs: Any) -> Messages:
    """No operation pages by an offset."""
    return [
        warning(
            "011",
            f"The view {_name(operation.view_func)} of {route!r} takes {', '.join(sorted(skips))}: "
            "a page deep in the list reads all rows before it, and each page counts all rows.",
            "Declare an api.listing.Listing, whose keyset pages all cost the same.",
        )
        for route, operation in _operations()
        if (skips := SKIPS & _paginated_by(operation))
    ]


def _views() -> Iterator[tuple[str, View, bool]]:
    """Route, function and whether it is async."""
    for route, operation in _operations():
        yield route, operation.view_func, operation.is_async
    for route, callback in _routes():
        if not _ninja_view(callback):
            yield route, _innermost(callback), iscoroutinefunction(callback)


def _operations() -> dict[tuple[str, Operation], None]:
    """Ninja's operations with their routes. A route stands in its URLs once for each method."""
    return {
        (route, operation): None
        for route, callback in _routes()
        if (view := _ninja_view(callback))
        for operation in view.operations
    }


def _routes(resolver: URLResolver | None = None, prefix: str = "") -> Iterator[tuple[str, View]]:
    for entry in (resolver or get_resolver()).url_patterns:
        route = prefix + str(entry.pattern)
        if isinstance(entry, URLResolver):
            yield from _routes(entry, route)
        elif isinstance(entry, URLPattern):
            yield route, entry.callback


def _ninja_view(callback: View) -> PathView | None:
    """The PathView behind a view of Ninja's: all that a URL pattern holds is a closure over it."""
    function = inspect.unwrap(callback)
    view = inspect.getclosurevars(function).nonlocals.get("self") if inspect.isfunction(function) else None
    return view if isinstance(view, PathView) else None


def _paginated_by(operation: Operation) -> set[str]:
    """The parameters that Ninja's @paginate adds to an operation."""
    contributed = getattr(operation.view_func, "_ninja_contribute_args", ())
    return {name for _, schema, _ in contributed for name in getattr(schema, "model_fields", ())}


def _innermost(view: View) -> View:
    """The function that a partial or a decorator with functools.wraps stands for."""
    while True:
        inner: View = inspect.unwrap(view)
        if isinstance(inner, partial):
            inner = inner.func
        if inner is view:
            return view
        view = inner


def _name(function: View) -> str:
    kind = getattr(function, "view_class", function)
    return f"{kind.__module__}.{getattr(kind, '__qualname__', type(kind).__qualname__)}"
