"""The settings of tests, with routes that ask for a credential, and patience with a Redis on a busy machine."""

from ops.redis import client
from tests.settings import *  # noqa: F403  that is what a settings module's variant is

client.TIMEOUT_SECONDS = 2.0
ROOT_URLCONF = "tests.api.keys.urls"
