"""Routes by their names, for what is answered before Django is asked."""

import pytest
from django.http import HttpRequest, HttpResponse
from django.urls import path, re_path

from ops.asgi.routes import match_of, route_of
from ops.telemetry.stopwatch import UNMATCHED, Stopwatch, current


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/api/products", "api/products"),
        ("/api/products/7", "api/products/<id:product_id>"),
        ("/api/products/007", UNMATCHED),
        ("/api/products/x", UNMATCHED),
        ("/api/products/\xff", UNMATCHED),
        ("/nothing", UNMATCHED),
        ("", UNMATCHED),
    ],
)
def test_the_route_of_a_path(path: str, route: str) -> None:
    assert route_of(path) == route


def view(_: HttpRequest) -> HttpResponse:
    return HttpResponse()


urlpatterns = [re_path(r"^old/$", view), path("new/", view)]


@pytest.mark.urls(__name__)
def test_a_path_that_only_django_knew_at_first() -> None:
    """Nothing behind a re_path() is known here, until it was resolved."""
    assert route_of("/new/") == UNMATCHED
    assert match_of({"type": "http"}, "/new/").route == "new/"
    assert route_of("/new/") == "new/"


def test_a_layer_that_looks_for_the_view_tells_the_route() -> None:
    """So that its own answer is counted there: 429 of a rate limit."""
    token = current.set(watch := Stopwatch(b"id"))
    match_of({"type": "http"}, "/api/products")
    current.reset(token)
    assert watch.route == "api/products"
