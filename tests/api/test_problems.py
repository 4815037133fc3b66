"""Problem details: the shape of RFC 9457, a stable code, and nothing of what went wrong inside."""

import json

import pytest
from django.db import OperationalError
from django.http import HttpRequest, HttpResponse

from api import problems
from api.problems import CODES, Fault, Problem, invalid, not_allowed
from ops.asgi.problems import title
from ops.http.upstream import UpstreamUnavailable


def body(response: HttpResponse) -> dict[str, object]:
    assert response["Content-Type"] == "application/problem+json"
    content: dict[str, object] = json.loads(response.content)
    assert content["status"] == response.status_code
    return content


@pytest.mark.parametrize("status", sorted(CODES))
def test_shape(status: int) -> None:
    assert body(Problem(status, "Said so.").response()) == {
        "type": "about:blank",
        "title": title(status),
        "status": status,
        "code": CODES[status],
        "detail": "Said so.",
    }


def test_each_status_has_its_own_code() -> None:
    assert len(set(CODES.values())) == len(CODES)


def test_a_status_without_a_code_of_its_own() -> None:
    assert body(Problem(418, "Tea.").response())["code"] == "error"
    assert body(Problem(400, "No.", code="special").response())["code"] == "special"


def test_every_fault_is_in_the_detail() -> None:
    faults = [
        Fault(parameter="a", code="empty", detail="may not"),
        Fault(parameter="b", code="x", detail="must"),
    ]
    content = body(invalid(faults).response())
    assert (content["status"], content["code"]) == (422, "invalid_parameter")
    assert content["detail"] == "a: may not; b: must"
    assert content["errors"] == [
        {"parameter": "a", "code": "empty", "detail": "may not"},
        {"parameter": "b", "code": "x", "detail": "must"},
    ]


def test_another_service_is_named() -> None:
    answer = problems.upstream_unavailable(UpstreamUnavailable("weather", "timeout")).response()
    assert body(answer)["code"] == "weather_unavailable"
    assert answer["Retry-After"] == "1"
    answer = problems.upstream_unavailable(UpstreamUnavailable("weather", "unconfigured")).response()
    assert body(answer)["code"] == "weather_unavailable"
    assert "Retry-After" not in answer


@pytest.mark.parametrize("text", ['"', "\\", "\0\n\x1f", "é\u2028🌍", "</script>"])
def test_any_text_is_json(text: str) -> None:
    assert body(Problem(400, text).response())["detail"] == text


def test_method_not_allowed_names_the_methods() -> None:
    response = not_allowed({"PUT", "GET"})
    assert (body(response)["code"], response["Allow"]) == ("method_not_allowed", "GET, HEAD, PUT")


def test_headers_are_sent() -> None:
    assert Problem(503, "Later.", headers={"Retry-After": "1"}).response()["Retry-After"] == "1"


@pytest.mark.parametrize(
    ("response", "status"),
    [
        (problems.bad_request(HttpRequest(), OperationalError("s3cret")), 400),
        (problems.forbidden(HttpRequest(), OperationalError("s3cret")), 403),
        (problems.not_found(HttpRequest(), OperationalError("s3cret")), 404),
        (problems.internal_error(HttpRequest()), 500),
    ],
    ids=str,
)
def test_what_django_itself_answers(response: HttpResponse, status: int) -> None:
    content = body(response)
    assert (content["status"], content["code"]) == (status, CODES[status])
    assert "s3cret" not in str(content)
