"""The settings of tests, with routes that write besides the shop's."""

import os

from ops.redis import client
from tests.settings import *  # noqa: F403  that is what a settings module's variant is

client.TIMEOUT_SECONDS = float(os.environ.get("REDIS_TIMEOUT_SECONDS", client.TIMEOUT_SECONDS))
ROOT_URLCONF = "tests.e2e.cache.urls"
