"""The settings of tests, with routes that take an Idempotency-Key, and a token that is its client's name."""

from tests.settings import *  # noqa: F403  that is what a settings module's variant is

ROOT_URLCONF = "tests.api.idempotency.urls"
AUTHENTICATE = "tests.api.idempotency.urls.authenticate"
