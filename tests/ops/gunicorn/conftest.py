"""Each of a module's twins in turn, and the service with its metrics."""

import pytest

from tests.ops.gunicorn.twins import Server, Twins
from tests.ops.telemetry.conftest import start

__all__ = ["start"]


@pytest.fixture(params=["wire", "layer"])
def server(request: pytest.FixtureRequest, pair: Twins) -> Server:
    found: Server = getattr(pair, request.param)
    return found
