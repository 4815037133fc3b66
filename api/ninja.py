"""The NinjaAPI that carries every resource: its errors, its OpenAPI document, its documentation page."""

import re
from collections.abc import Callable
from functools import partial
from typing import Any, cast

from django.http import HttpRequest, HttpResponse
from django.utils.functional import SimpleLazyObject
from ninja import NinjaAPI
from ninja.operation import PathView

from api import docs, openapi, problems
from api.cache.policy import policy_of
from api.json import OrjsonParser, OrjsonRenderer


class Api(NinjaAPI):
    """NinjaAPI whose errors are problem details and whose documentation needs no foreign host."""

    def __init__(self, **options: Any) -> None:
        super().__init__(
            parser=OrjsonParser(),
            renderer=OrjsonRenderer(),
            docs=docs.Docs(),
            docs_decorator=problems.safe_methods,
            **options,
        )
        problems.handle_errors(self)

    def create_temporal_response(self, request: HttpRequest) -> HttpResponse:
        """What an endpoint may set headers on, made only if one does: most answer with a response of their own."""
        return cast("HttpResponse", SimpleLazyObject(partial(super().create_temporal_response, request)))

    def _get_urls(self) -> list[Any]:
        for router in self._get_bound_routers():
            for path, view in router.path_operations.items():
                methods = {method for operation in view.operations for method in operation.methods}
                # Ninja's own answer is plain text; a PathView has no other seam.
                setattr(view, "_not_allowed", partial(problems.not_allowed, methods))  # noqa: B010
                _show_policy(path, view)
        return super()._get_urls() + docs.urls

    def get_openapi_schema(self, *, path_prefix: Any = None, path_params: Any = None) -> Any:
        document = super().get_openapi_schema(path_prefix=path_prefix, path_params=path_params)
        openapi.complete(document)
        return document


def _show_policy(path: str, view: PathView) -> None:
    """Let whoever resolves a path, or reads the OpenAPI document, see how the answers of its GET are cached."""
    for operation in view.operations:
        policy = policy_of(operation.view_func)
        if policy and "GET" in operation.methods:
            policy.fits(re.findall(r"{(?:\w+:)?(\w+)}", path))
            function = view.get_view()
            function.page_policy = policy  # type: ignore[attr-defined]
            setattr(view, "get_view", partial(_same, function))  # noqa: B010
            operation.openapi_extra = openapi.with_cache(operation.openapi_extra, policy)


def _same(function: Callable[..., Any]) -> Callable[..., Any]:
    return function
