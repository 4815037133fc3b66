"""The Django view of a path, with a shorter way for operations that need few of Ninja's steps.

Ninja's own way from a view to its endpoint takes four coroutines, a response for the endpoint's header fields, and
for each parameter a walk through dictionaries: 12 us of 30 for a row by id. The way here is one coroutine. It serves
async endpoints that have no authenticators other than scopes, no throttle, no stream of Ninja's, no parameter for the
response, and no decorated `run`. Other endpoints take Ninja's way; with RUNTIME=stock, all do.
"""

from collections.abc import Awaitable, Callable
from typing import Any

from asgiref.sync import sync_to_async
from django.conf import settings
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from ninja.errors import AuthenticationError
from ninja.operation import AsyncOperation, Operation, PathView
from pydantic import ValidationError

from api.auth import scopes_of

Answering = Callable[..., Awaitable[HttpResponseBase]]
Reading = Callable[[HttpRequest, dict[str, Any]], dict[str, Any]]


def view_of(path_view: PathView, not_allowed: Callable[[], HttpResponseBase]) -> Any:
    """Return the view for the URL configuration. `not_allowed` answers a method that the path lacks."""
    if not path_view.is_async or settings.RUNTIME == "stock":
        # Ninja's own 405 is plain text; a PathView offers no other way to replace it.
        setattr(path_view, "_not_allowed", not_allowed)  # noqa: B010
        return path_view.get_view()
    by_method: dict[str, Answering] = {}
    for operation in path_view.operations:
        answering = _answering(operation)
        for method in operation.methods:
            by_method.setdefault(method, answering)

    async def view(request: HttpRequest, **path: Any) -> HttpResponseBase:
        answering = by_method.get(request.method or "")
        return await answering(request, **path) if answering else not_allowed()

    function: Any = view
    function.csrf_exempt = True  # as on Ninja's views: no credential comes in a cookie
    function.path_view = path_view  # for the system checks
    return function


def _answering(operation: Operation) -> Answering:
    """Return the function that answers requests for one operation."""
    own: Any = operation
    authenticators = scopes_of(own.auth_callbacks)
    if not isinstance(operation, AsyncOperation):
        return sync_to_async(own.run)
    if (
        len(authenticators) < len(own.auth_callbacks)
        or own.throttle_objects
        or own.stream_format
        or own.signature.response_arg
        or "run" in vars(own)  # it is decorated
    ):
        return operation.run
    read = _reading(own)

    async def answer(request: HttpRequest, **path: Any) -> HttpResponseBase:
        api = own.api
        try:
            for authenticator in authenticators:
                if identity := await authenticator(request):
                    request.auth = identity  # type: ignore[attr-defined]
                    break
            else:
                if authenticators:
                    raise AuthenticationError
            result = await own.view_func(request, **read(request, path))
            if isinstance(result, HttpResponseBase):
                return result
            return own._result_to_response(request, result, api.create_temporal_response(request))  # type: ignore[no-any-return]  # noqa: SLF001
        except Exception as error:  # noqa: BLE001
            return api.on_exception(request, error)  # type: ignore[no-any-return]

    return answer


def _reading(operation: Any) -> Reading:
    """Return a function that reads the endpoint's arguments: a quick one if all are in the path."""

    def read(request: HttpRequest, path: dict[str, Any]) -> dict[str, Any]:
        return operation._get_values(request, path, None)  # type: ignore[no-any-return]  # noqa: SLF001

    if not operation.models:
        return lambda _request, _path: {}
    model, *others = operation.models
    names = getattr(model, "__ninja_flatten_map__", {})
    if others or model.__ninja_param_source__ != "path" or any((n,) != (*way,) for n, way in names.items()):
        return read

    def read_path(request: HttpRequest, path: dict[str, Any]) -> dict[str, Any]:
        try:
            values: dict[str, Any] = vars(model.model_validate(path, context={"request": request}))
        except ValidationError:
            return read(request, path)  # which raises the error as Ninja does
        return values

    return read_path
