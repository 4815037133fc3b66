"""The service's settings, with routes of the tests besides its own."""

from config.settings import *  # noqa: F403  that is what a settings module's variant is

ROOT_URLCONF = "tests.e2e.cache.urls"
