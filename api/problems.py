"""Errors as RFC 9457 problem details.

There is one exception with a stable code, and one place that turns every other error into it. `code` is the
contract: clients may branch on it, and it does not change when a sentence does. `errors` names each parameter or
field at fault.
"""

from collections.abc import Callable, Collection, Mapping
from functools import wraps
from typing import Any, cast

import django.db
import psycopg
from django.conf import settings
from django.core.exceptions import RequestDataTooBig
from django.http import Http404, HttpRequest, HttpResponse
from ninja import NinjaAPI, Schema
from ninja.errors import AuthenticationError, HttpError, ValidationError
from psycopg_pool import TooManyRequests
from pydantic import Field

from ops.asgi import problems
from ops.asgi.bodies import Refused, limit_of
from ops.http.upstream import UpstreamUnavailable
from ops.postgres.pool import Busy

SAFE = ("GET", "HEAD")
CONTENT_TYPE = problems.CONTENT_TYPE

# The stable code of an error that carries nothing but its status.
CODES = {
    400: "bad_request",
    401: "unauthenticated",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    408: "request_timeout",
    409: "conflict",
    412: "precondition_failed",
    413: "content_too_large",
    415: "unsupported_media_type",
    422: "invalid_parameter",
    428: "precondition_required",
    500: "internal_error",
    503: "unavailable",
}

UNAUTHENTICATED = "This needs a credential, and the request has none that is valid."


class Fault(Schema):
    """One thing wrong with one parameter or field."""

    parameter: str
    code: str
    detail: str


class ProblemDetails(Schema):
    """The body of every error answer (RFC 9457)."""  # which ops/asgi/problems.py writes

    type: str = "about:blank"
    title: str
    status: int
    code: str
    detail: str
    errors: list[Fault] | None = Field(None, description="Each parameter at fault.")
    supported: list[dict[str, Any]] | None = Field(None, description="What would be answered instead.")


class Problem(Exception):
    """An error answer: raise it anywhere below an endpoint."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        code: str | None = None,
        errors: list[Fault] | None = None,
        supported: list[dict[str, Any]] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status, self.detail = status, detail
        self.code = code or CODES.get(status, "error")
        self.errors, self.supported, self.headers = errors, supported, headers

    def response(self) -> HttpResponse:
        problems.count(self.code)
        errors = None if self.errors is None else [fault.model_dump() for fault in self.errors]
        body = problems.encode(self.status, self.code, self.detail, errors=errors, supported=self.supported)
        return HttpResponse(body, status=self.status, content_type=CONTENT_TYPE, headers=self.headers)


def invalid(errors: list[Fault]) -> Problem:
    """Return a 422 that names each parameter that cannot be understood."""
    return Problem(422, "; ".join(f"{e.parameter}: {e.detail}" for e in errors), errors=errors)


def not_allowed(methods: Collection[str]) -> HttpResponse:
    """Return a 405 for a view that has these `methods`."""
    detail, allowed = problems.not_allowed(methods)
    return Problem(405, detail, headers={"Allow": allowed}).response()


def safe_methods(view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
    """Restrict a view to GET and HEAD: other methods are answered 405."""

    @wraps(view)
    def checked(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        return view(request, *args, **kwargs) if request.method in SAFE else not_allowed(SAFE)

    checked.body_limits = {"GET": limit_of(view)}  # type: ignore[attr-defined]  # see ops/asgi/bodies.py
    return checked


def handle_errors(api: NinjaAPI) -> None:
    """Make `api` answer every error that its endpoints raise with problem details."""

    def handle(error: type[Exception], to_problem: Callable[[Any], Problem]) -> None:
        api.add_exception_handler(error, lambda _request, error: to_problem(error).response())

    def unauthenticated(request: HttpRequest, error: AuthenticationError) -> HttpResponse:
        view = request.resolver_match and request.resolver_match.func
        challenge = getattr(view, "challenges", {}).get(request.method)  # see api/ninja.py
        headers = {"WWW-Authenticate": challenge} if challenge else None
        return Problem(error.status_code, UNAUTHENTICATED, headers=headers).response()

    def invalid_by_ninja(error: ValidationError) -> Problem:
        """Name a field without its place, which Ninja's own validation puts first: ["path", "product_id"]."""
        return invalid([
            Fault(parameter=".".join(map(str, e["loc"][1:])), code=str(e["type"]), detail=str(e["msg"]))
            for e in error.errors
        ])  # fmt: skip

    def refused(error: Refused) -> Problem:
        status, code, detail = error.problem
        return Problem(status, detail, code=code)

    def without_database(error: Exception) -> Problem:
        # An error of the sync ORM has that of psycopg or the pool as its cause.
        is_busy = isinstance(error.__cause__ or error, Busy | TooManyRequests)
        return overloaded if is_busy else database_unavailable

    database_unavailable = Problem(
        503,
        "The database did not answer in time. Try again.",
        code="database_unavailable",
        headers={"Retry-After": "1"},
    )
    # Nothing was sent to the database, which has enough to do.
    overloaded = Problem(503, problems.OVERLOADED, code="overloaded", headers={"Retry-After": "1"})
    # During a failover, for example: the old primary is a standby now, or the role is still barred from writing.
    read_only = Problem(
        503,
        "The database takes no writes at the moment: nothing was written. Try again.",
        code="database_read_only",
        headers={"Retry-After": "1"},
    )

    def without_writes(error: Exception) -> Problem:
        if not isinstance(error.__cause__ or error, psycopg.errors.ReadOnlySqlTransaction):
            raise error  # a fault of the service
        return read_only

    handle(Problem, lambda problem: problem)
    handle(Http404, lambda _: Problem(404, "There is no such resource."))
    handle(HttpError, lambda error: Problem(error.status_code, str(error)))
    handle(ValidationError, invalid_by_ninja)
    handle(RequestDataTooBig, lambda _: _too_big())
    handle(Refused, refused)
    handle(UpstreamUnavailable, upstream_unavailable)
    for error in (django.db.OperationalError, psycopg.OperationalError):
        handle(error, without_database)
    handle(django.db.InternalError, without_writes)
    handle(psycopg.errors.ReadOnlySqlTransaction, without_writes)
    api.add_exception_handler(AuthenticationError, cast("Any", unauthenticated))  # Ninja's type asks for more


def upstream_unavailable(error: UpstreamUnavailable) -> Problem:
    """Return a 503 for an answer that needs another service; its code begins with the name of that service."""
    code = f"{error.upstream}_unavailable"
    if error.reason == "unconfigured":
        return Problem(503, f"This service runs without a source of {error.upstream}.", code=code)
    detail = f"The source of {error.upstream} did not answer as it should. Try again."
    return Problem(503, detail, code=code, headers={"Retry-After": "1"})


def _too_big() -> Problem:
    return Problem(413, f"A request may hold {settings.DATA_UPLOAD_MAX_MEMORY_SIZE} bytes beside its files.")


# Django's own error views (handler400 to handler500 of a URL configuration), where no endpoint was reached.


def bad_request(_request: HttpRequest, exception: Exception) -> HttpResponse:
    if isinstance(exception, RequestDataTooBig):
        return _too_big().response()
    return Problem(400, "The request cannot be understood.").response()


def forbidden(_request: HttpRequest, exception: Exception) -> HttpResponse:
    return Problem(403, "This is not allowed.").response()


def not_found(_request: HttpRequest, exception: Exception) -> HttpResponse:
    return Problem(404, "There is no such resource.").response()


def internal_error(_request: HttpRequest) -> HttpResponse:
    return Problem(500, "The service failed; the error has been logged.").response()
