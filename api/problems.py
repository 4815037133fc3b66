"""Errors as RFC 9457 problem details.

One exception with a stable code, one place that turns every other error into it. `code` is the contract: clients
may branch on it, and it does not change when a sentence does. `errors` names each parameter or field at fault.
"""

from collections.abc import Callable, Collection, Mapping
from functools import wraps
from typing import Any

import django.db
import psycopg
from django.http import Http404, HttpRequest, HttpResponse
from ninja import NinjaAPI, Schema
from ninja.errors import HttpError, ValidationError
from pydantic import Field

from ops.asgi.problems import count, title

SAFE = ("GET", "HEAD")
CONTENT_TYPE = "application/problem+json"

# The stable code of an error that carries nothing but its status.
CODES = {
    400: "bad_request",
    401: "unauthenticated",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    413: "content_too_large",
    422: "invalid_parameter",
    500: "internal_error",
    503: "unavailable",
}


class Fault(Schema):
    """One thing wrong with one parameter or field."""

    parameter: str
    code: str
    detail: str


class ProblemDetails(Schema):
    """The body of every error answer (RFC 9457)."""

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
        self.headers = headers
        self.details = ProblemDetails(
            title=title(status),
            status=status,
            code=code or CODES.get(status, "error"),
            detail=detail,
            errors=errors,
            supported=supported,
        )

    def response(self) -> HttpResponse:
        count(self.details.code)
        return HttpResponse(
            self.details.model_dump_json(exclude_none=True),
            status=self.details.status,
            content_type=CONTENT_TYPE,
            headers=self.headers,
        )


def invalid(errors: list[Fault]) -> Problem:
    """422 for parameters that cannot be understood, each of them named."""
    return Problem(422, "; ".join(f"{e.parameter}: {e.detail}" for e in errors), errors=errors)


def not_allowed(methods: Collection[str]) -> HttpResponse:
    """`methods` are those of the view; HEAD comes with GET (ops/asgi/head.py)."""
    allowed = ", ".join(sorted({*methods, "HEAD"} if "GET" in methods else methods))
    return Problem(405, f"This resource answers {allowed}.", headers={"Allow": allowed}).response()


def safe_methods(view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
    """A view of GET and HEAD only."""

    @wraps(view)
    def checked(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        return view(request, *args, **kwargs) if request.method in SAFE else not_allowed(SAFE)

    return checked


def handle_errors(api: NinjaAPI) -> None:
    """Make `api` answer every error that its endpoints raise with problem details."""

    def handle(kind: type[Exception], to_problem: Any) -> None:
        api.add_exception_handler(kind, lambda _request, error: to_problem(error).response())

    handle(Problem, lambda problem: problem)
    handle(Http404, lambda _: Problem(404, "There is no such resource."))
    handle(HttpError, lambda error: Problem(error.status_code, str(error)))
    handle(ValidationError, _from_ninja)
    for error in (django.db.OperationalError, psycopg.OperationalError):
        handle(error, lambda _: _database_unavailable())


def _from_ninja(error: ValidationError) -> Problem:
    """Ninja's own validation names a field by where it came from: ["path", "product_id"]."""
    return invalid(
        [
            Fault(parameter=".".join(map(str, e["loc"][1:])), code=str(e["type"]), detail=str(e["msg"]))
            for e in error.errors
        ]
    )


def _database_unavailable() -> Problem:
    return Problem(
        503,
        "The database did not answer in time. Try again.",
        code="database_unavailable",
        headers={"Retry-After": "1"},
    )


# Django's own error views (handler400 to handler500 of a URL configuration), for what never reaches an endpoint.


def bad_request(_request: HttpRequest, exception: Exception) -> HttpResponse:
    return Problem(400, "The request cannot be understood.").response()


def forbidden(_request: HttpRequest, exception: Exception) -> HttpResponse:
    return Problem(403, "This is not allowed.").response()


def not_found(_request: HttpRequest, exception: Exception) -> HttpResponse:
    return Problem(404, "There is no such resource.").response()


def internal_error(_request: HttpRequest) -> HttpResponse:
    return Problem(500, "The service failed; the error has been logged.").response()
