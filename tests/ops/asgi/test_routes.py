"""Routes by their names, for what is answered before Django is asked."""

import pytest

from ops.asgi.routes import route_of
from ops.telemetry.stopwatch import UNMATCHED


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
