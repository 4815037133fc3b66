"""The handler behind a socket, with the views of this directory."""

from collections.abc import Iterator
from typing import Any

import pytest
from django.core.handlers.asgi import ASGIHandler
from django.db import connection
from pytest_django import DjangoDbBlocker, Settings

from ops.asgi.handler import LeanASGIHandler
from tests.ops.asgi import views
from tests.ops.asgi.server import Serving, serve


@pytest.fixture
def routes(settings: Settings) -> None:
    settings.ROOT_URLCONF = "tests.ops.asgi.views"
    views.events.clear()


@pytest.fixture
def lean(routes: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Serving]:
    with serve(LeanASGIHandler(), monkeypatch) as serving:
        yield serving


@pytest.fixture(params=[LeanASGIHandler, ASGIHandler])
def either(
    request: pytest.FixtureRequest, routes: None, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Serving]:
    """Each handler in turn: what holds for Django's must hold for the lean one."""
    with serve(request.param(), monkeypatch) as serving:
        yield serving


@pytest.fixture
def pool(django_db_blocker: DjangoDbBlocker) -> Iterator[views.Pool]:
    """The sync ORM's pool on the real Postgres. The views only read, so no test database is needed."""
    wrapper: Any = connection
    with django_db_blocker.unblock():
        wrapper.close()  # what another test may have left open in this thread
        yield views.Pool(wrapper.pool)
        wrapper.close_pool()
