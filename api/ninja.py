"""The NinjaAPI that carries every resource: its errors, its OpenAPI document, its documentation page."""

import re
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any, cast

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest, HttpResponse
from django.utils.functional import SimpleLazyObject
from ninja import NinjaAPI
from ninja.operation import Operation

from api import docs, openapi, problems
from api.auth import scopes_of
from api.cache.policy import Endpoint, Policy, policy_of
from api.idempotency.once import Once, idempotency_of, refusing
from api.limits import READ, READS, WRITE, read_classes
from api.operation import view_of
from api.orjson_renderer import CONTENT_TYPE, OrjsonParser, OrjsonRenderer
from api.writes import violations
from ops.asgi.bodies import limit_of, streams

PARAMETER = re.compile(r"{(?:\w+:)?(\w+)}")  # in a Ninja path
MAX_DOCUMENTS = 8  # OpenAPI documents that an Api keeps, one for each prefix that proxies take off


class Api(NinjaAPI):
    """NinjaAPI with problem details for errors, and documentation that needs no foreign host."""

    def __init__(self, **options: Any) -> None:
        super().__init__(
            parser=OrjsonParser(),
            renderer=OrjsonRenderer(),
            docs=docs.Docs(),
            docs_decorator=docs.revalidated,
            **options,
        )
        self._document = lru_cache(MAX_DOCUMENTS)(self._make_document)
        problems.handle_errors(self)
        violations.handle_errors(self)
        APIS.append(self)

    def get_content_type(self) -> str:
        """The content type without the charset that Ninja adds: JSON does not need it."""
        return CONTENT_TYPE

    def create_temporal_response(self, request: HttpRequest) -> HttpResponse:
        """Return a response for the endpoint to set fields on. It is made at its first use: few endpoints need it."""
        return cast("HttpResponse", SimpleLazyObject(partial(super().create_temporal_response, request)))

    def _get_urls(self) -> list[Any]:
        """Give each view the attributes that the runtime reads, such as `body_limits` and `page_policy`."""
        for router in self._get_bound_routers():
            for path, view in router.path_operations.items():
                body_limits: dict[str, int] = {}
                function: Any = view_of(view, partial(problems.not_allowed, body_limits))
                function.body_limits = body_limits  # by method; see ops/asgi/bodies.py
                function.challenges = {}  # by method
                function.streamed_bodies = set()  # methods
                function.rate_classes = {}  # by method; see api/limits.py
                for operation in view.operations:
                    self._tell(function, path, operation)
                setattr(view, "get_view", lambda function=function: function)  # noqa: B010
        return super()._get_urls() + docs.urls

    def _tell(self, function: Any, path: str, operation: Operation) -> None:
        """Set the attributes of the view `function` for one operation, and document their effect in OpenAPI."""
        # Only authenticators with an HTTP scheme have a challenge (RFC 9110, 11.6.1).
        callbacks: Any = operation.auth_callbacks
        schemes = [one.openapi_scheme for one in callbacks if getattr(one, "openapi_type", "") == "http"]
        challenge = ", ".join(f'{scheme.capitalize()} realm="api"' for scheme in schemes)
        for method in operation.methods:
            function.body_limits[method] = limit_of(operation.view_func)
            if streams(operation.view_func):
                function.streamed_bodies.add(method)
            function.challenges[method] = challenge  # WWW-Authenticate of a 401
            name = rate_class_of(operation.view_func, method)
            function.rate_classes[method] = name
            if settings.RATE_LIMITS[name]:
                operation.openapi_extra = openapi.with_limit(operation.openapi_extra)
        if operation.auth_callbacks:
            names = [one.names for one in scopes_of(operation.auth_callbacks)]
            operation.openapi_extra = openapi.with_auth(operation.openapi_extra, names)
        policy = policy_of(operation.view_func)
        if policy and "GET" in operation.methods:
            policy = complete_policy(policy, path, operation)
            function.page_policy = policy
            operation.openapi_extra = openapi.with_cache(operation.openapi_extra, policy)
        if idempotency := idempotency_of(operation.view_func):
            operation.view_func = Once(operation)
            operation.openapi_extra = openapi.with_idempotency(
                operation.openapi_extra, is_required=idempotency == "required"
            )
        elif "POST" in operation.methods:
            operation.view_func = refusing(operation.view_func)

    def get_openapi_schema(self, *, path_prefix: Any = None, path_params: Any = None) -> Any:
        """Return the document, made once for each prefix: that takes 30 ms, in which a worker answers nothing."""
        return self._document(path_prefix or self.get_root_path(path_params or {}))

    def _make_document(self, path_prefix: str) -> Any:
        document = super().get_openapi_schema(path_prefix=path_prefix)
        openapi.complete(document)
        return document


def rate_class_of(view: Any, method: str) -> str:
    """Return the rate class of an operation for a method. A class that @rate_class gives to reads is remembered.

    Raises ImproperlyConfigured if the class is not in the settings.
    """
    name: str = getattr(view, "rate_class", "")
    if name and name not in settings.RATE_LIMITS:
        raise ImproperlyConfigured(f"{view.__module__}.{view.__name__}: RATE_LIMITS has no {name!r}.")
    if name and method in READS:
        read_classes.add(name)
    return name or (READ if method in READS else WRITE)


def complete_policy(policy: Policy, path: str, operation: Operation) -> Policy:
    """Return the policy with the query parameters of the operation's signature.

    Raises ImproperlyConfigured if answers may depend on more than the key of their entry.
    """
    asked: dict[str, list[str]] = {
        model.__ninja_param_source__: [*getattr(model, "__ninja_flatten_map__", ())]
        for model in operation.models
    }
    parameters, resource = asked.get("query", []), policy.resource
    if isinstance(resource, Endpoint) and resource.parameters is None:
        resource = replace(resource, parameters=tuple(parameters))
    unsaid = [name for name in parameters if name not in (resource.parameters or ())]
    fields = [*asked.get("header", ()), *asked.get("cookie", ())]
    rows = {d.parameter for d in policy.depends_on if d.parameter} - {*PARAMETER.findall(path)}
    wrong = ""
    if operation.auth_callbacks:
        wrong = "has an authenticator. Take @cached off, or make the endpoint public with auth=None"
    elif operation.throttle_objects:
        wrong = "is throttled, but knows no client, and is called for a miss only. Take @cached or the throttle off"
    elif fields:
        wrong = (
            f"reads the header fields {fields}, which it does not see. Take @cached or those parameters off"
        )
    elif unsaid:
        wrong = (
            f"reads the query parameters {unsaid}, which the key of its answers lacks. Name them in the key"
        )
    elif rows:
        wrong = f"depends on the row that {rows} names, which its path lacks"
    if wrong:
        view = operation.view_func
        raise ImproperlyConfigured(
            f"{view.__module__}.{view.__name__} (GET {path}) is cached, so its answers are everybody's, and {wrong}."
        )
    return replace(policy, resource=resource)


# Every Api of the process.
APIS: list[Api] = []
