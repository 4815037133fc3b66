"""Checks of views: those of the API stay in the event loop, read in bounds, and write for known clients."""

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from asgiref.sync import iscoroutinefunction
from django.conf import settings
from django.urls import URLPattern, URLResolver, get_resolver
from ninja.operation import Operation, PathView

from ops.checks.messages import Messages, warning
from ops.postgres.commands import RowCommand

View = Callable[..., Any]

# Pages for people, which may be sync: the admin and other views of Django, Ninja's documentation, the
# profilers. A project adds modules of its own in settings.SYNC_VIEWS. Everything else is the API.
PAGES = ("django.", "ninja.openapi.", "silk.", "debug_toolbar.")
SKIPS = {"offset", "page"}  # parameters by which a list reads rows only to skip them
WRITES = {"POST", "PUT", "PATCH", "DELETE"}
LOOPS = (ast.For, ast.AsyncFor, ast.While, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
# Methods of the ORM that write one row. Those with names that other objects have, such as delete(), are left out.
ROW_BY_ROW = {
    *("save", "asave", "acreate", "adelete", "aupdate"),
    *("get_or_create", "aget_or_create", "update_or_create", "aupdate_or_create"),
}


def check_views(**_kwargs: Any) -> Messages:
    """Check that the API's views are async; each of Ninja's operations is looked at by itself."""
    pages = (*PAGES, *getattr(settings, "SYNC_VIEWS", ()))
    views = [(route, operation.view_func, operation.is_async) for route, operation in operations()]
    views += [
        (route, callback, iscoroutinefunction(callback))
        for route, callback in _routes()
        if not _ninja_view(callback)
    ]
    return [
        warning(
            "010",
            f"The view {name} of {route!r} is sync: each request hops to a thread and back.",
            "Make it async and read through ops.postgres.pool or the ORM's a-methods. Where its module serves "
            "pages for people, name the module in SYNC_VIEWS.",
        )
        for route, function, is_async in views
        if not is_async and not (name := _name(function)).startswith(pages)
    ]


def check_root_path(**_kwargs: Any) -> Messages:
    """Check that no route begins with ROOT_PATH, which is taken off a path that begins with it."""
    prefix = f"{settings.ROOT_PATH}/".removeprefix("/")
    routes = [route for route, _ in _routes() if prefix and route.startswith(prefix)]
    return [
        warning(
            "014",
            f"ROOT_PATH is {settings.ROOT_PATH!r}, with which the route {route!r} begins: requests for it are 404, "
            "since a proxy may leave the prefix on.",
            "Choose another prefix, or let the proxy leave this one on and set no ROOT_PATH.",
        )
        for route in routes[:1]
    ]


def check_pagination(**_kwargs: Any) -> Messages:
    """Check that no operation pages by an offset."""
    return [
        warning(
            "011",
            f"The view {_name(operation.view_func)} of {route!r} takes {', '.join(sorted(skips))}: "
            "a page deep in the list reads all rows before it, and each page counts all rows.",
            "Declare an api.Listing, whose keyset pages all cost the same.",
        )
        for route, operation in operations()
        # The parameters that Ninja's @paginate adds to an operation.
        for added in [getattr(operation.view_func, "_ninja_contribute_args", ())]
        if (skips := SKIPS & {name for _, schema, _ in added for name in getattr(schema, "model_fields", ())})
    ]


def check_writes(**_kwargs: Any) -> Messages:
    """Check that each operation that changes something asks for a credential, or says that it does not."""
    return [
        warning(
            "012",
            f"The view {_name(operation.view_func)} answers {', '.join(writes)} of {route!r} to any client.",
            'Give it auth=scope("..."), or auth=None to say that any client may.',
        )
        for route, operation in operations()
        if (writes := sorted(WRITES & {*operation.methods}))
        and not operation.auth_callbacks
        and operation.auth_param is not None
    ]


def check_loops(**_kwargs: Any) -> Messages:
    """Check that no operation that changes something writes row by row in a loop of its own function."""
    return [
        warning(
            "013",
            f"The view {_name(operation.view_func)} of {route!r} calls {call}() in a loop: "
            "a round trip for each row.",
            "Write all rows by one statement: api.BulkWrites, a command of many rows, bulk_create(), bulk_update().",
        )
        for route, operation in operations()
        if WRITES & {*operation.methods} and (call := _written_in_loop(operation.view_func))
    ]


def _written_in_loop(function: View) -> str:
    """Return the name of a call by which a function writes one row in a loop of its own, or an empty text."""
    function = inspect.unwrap(function)
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError):  # it has no source of its own
        return ""
    for loop in ast.walk(tree):
        for call in ast.walk(loop) if isinstance(loop, LOOPS) else ():
            if isinstance(call, ast.Call):
                name = ast.unparse(call.func)
                if name.rpartition(".")[2] in ROW_BY_ROW:
                    return name
                known = getattr(function, "__globals__", {}).get(name)
                if isinstance(known, RowCommand):
                    return name
    return ""


def operations() -> dict[tuple[str, Operation], None]:
    """Return Ninja's operations with their routes, each once: Ninja's URLs have a route once for each method."""
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
    """Return the PathView behind a view: an attribute of those of api/operation.py; Ninja's are closures over it."""
    function = inspect.unwrap(callback)
    view = getattr(function, "path_view", None)
    if view is None and inspect.isfunction(function):
        view = inspect.getclosurevars(function).nonlocals.get("self")
    return view if isinstance(view, PathView) else None


def _name(function: View) -> str:
    """Return the dotted name of a view, or of the function within a partial or a decorator with functools.wraps."""
    while isinstance(function := inspect.unwrap(function), partial):
        function = function.func
    kind = getattr(function, "view_class", function)
    return f"{kind.__module__}.{getattr(kind, '__qualname__', type(kind).__qualname__)}"
