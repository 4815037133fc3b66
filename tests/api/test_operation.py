"""The short way to an endpoint answers as Ninja's own does."""

import asyncio
import json
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any

import pytest
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.test import RequestFactory
from ninja import NinjaAPI, Path, Query, Router, Schema
from ninja.decorators import decorate_view
from ninja.operation import PathView
from ninja.throttling import AnonRateThrottle
from pydantic import ValidationInfo, field_validator
from pytest_django import Settings

from api.auth import Identity, Scope
from api.operation import view_of
from api.problems import Problem, handle_errors

router = Router()


class Known(Scope):
    """Knows the clients `writer` and `reader`, by a header field of their own."""

    async def __call__(self, request: HttpRequest) -> Identity | None:
        name = request.headers.get("Client")
        if name == "reader":
            raise Problem(403, "No writer.", code="insufficient_scope")
        return Identity(name) if name == "writer" else None


class Place(Schema):
    row: int
    part: str

    @field_validator("part")
    @classmethod
    def by_context(cls, value: str, info: ValidationInfo) -> str:
        return f"{value}{(info.context or {})['request'].method}"


class Answer(Schema):
    number: int


def named(endpoint: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(endpoint)
    def run(request: HttpRequest, *arguments: Any, **named: Any) -> Any:
        request.decorated = True  # type: ignore[attr-defined]
        return endpoint(request, *arguments, **named)

    return run


@router.get("/number/{number}", response=Answer)
async def number(request: HttpRequest, number: Annotated[int, Path(ge=1)]) -> dict[str, int]:
    return {"number": number}


@router.post("/number/{number}", auth=Known("write"))
async def protected(request: HttpRequest, number: int) -> HttpResponse:
    return HttpResponse(f"{number} {request.auth.name}")  # type: ignore[attr-defined]


@router.delete("/number/{number}")
def sync(request: HttpRequest, number: int) -> HttpResponse:
    return HttpResponse(f"without {number}", status=202)


@router.get("/place/{row}/{part}")
async def place(request: HttpRequest, at: Path[Place]) -> dict[str, Any]:
    return at.dict()


@router.get("/alias/{from}")
async def alias(request: HttpRequest, start: Annotated[int, Path(alias="from")]) -> dict[str, int]:
    return {"start": start}


@router.get("/both/{number}")
async def both(request: HttpRequest, number: int, more: Annotated[int, Query(ge=1)]) -> list[int]:
    return [number, more]


@router.get("/fields/{number}")
async def fields(request: HttpRequest, response: HttpResponse, number: int) -> int:
    response["Number"] = str(number)
    return number


@router.get("/throttled", throttle=[AnonRateThrottle("0/h")])
async def throttled(request: HttpRequest) -> int:
    return 1


@router.get("/decorated")
@decorate_view(named)
async def decorated(request: HttpRequest) -> bool:
    return request.decorated  # type: ignore[attr-defined,no-any-return]


@router.get("/fails")
async def fails(request: HttpRequest) -> None:
    raise Problem(409, "No.", code="conflict")


@router.get("/none", response={204: None})
async def none(request: HttpRequest) -> tuple[int, None]:
    return 204, None


API = NinjaAPI(urls_namespace="operation")
handle_errors(API)
API.add_router("", router)
_ = API.urls  # attaches the router
VIEWS: dict[str, PathView] = {
    path: view for bound in API._get_bound_routers() for path, view in bound.path_operations.items()
}


def not_allowed() -> HttpResponse:
    return HttpResponseNotAllowed(["GET"])


@pytest.mark.parametrize(
    ("method", "path", "named", "client"),
    [
        ("GET", "/number/{number}", {"number": "7"}, ""),
        ("GET", "/number/{number}", {"number": "0"}, ""),
        ("GET", "/number/{number}", {"number": "x"}, ""),
        ("POST", "/number/{number}", {"number": "7"}, "writer"),
        ("POST", "/number/{number}", {"number": "7"}, "reader"),
        ("POST", "/number/{number}", {"number": "x"}, "nobody"),
        ("POST", "/number/{number}", {"number": "x"}, "writer"),
        ("DELETE", "/number/{number}", {"number": "7"}, ""),
        ("DELETE", "/number/{number}", {"number": "x"}, ""),
        ("PATCH", "/number/{number}", {"number": "7"}, ""),
        ("GET", "/place/{row}/{part}", {"row": "3", "part": "a"}, ""),
        ("GET", "/place/{row}/{part}", {"row": "c", "part": "a"}, ""),
        ("GET", "/alias/{from}", {"from": "3"}, ""),
        ("GET", "/alias/{from}", {"from": "c"}, ""),
        ("GET", "/both/{number}", {"number": "3"}, ""),
        ("GET", "/fields/{number}", {"number": "3"}, ""),
        ("GET", "/throttled", {}, ""),
        ("GET", "/decorated", {}, ""),
        ("GET", "/fails", {}, ""),
        ("GET", "/none", {}, ""),
    ],
)
@pytest.mark.filterwarnings("ignore:Returning tuple")
def test_as_ninja_does(
    settings: Settings, method: str, path: str, named: dict[str, str], client: str
) -> None:
    answers = []
    for runtime in ("stock", "lean"):
        settings.RUNTIME = runtime
        view = view_of(VIEWS[path], not_allowed)
        request = RequestFactory().generic(method, path, headers={"Client": client})
        response = asyncio.run(view(request, **named))
        answers.append((response.status_code, dict(response.items()), response.content))
        assert view.csrf_exempt
    assert answers[0] == answers[1], json.dumps(answers[0][2].decode())
