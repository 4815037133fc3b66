"""The settings of tests, with endpoints that look at how a request came."""

from tests.settings import *  # noqa: F403  that is what a settings module's variant is

ROOT_URLCONF = "tests.e2e.security.urls"
