"""The service's settings, with routes of the tests besides its own."""

import os

from config.settings import *  # noqa: F403  that is what a settings module's variant is
from ops.redis import client

client.PATIENCE = float(os.environ.get("CHAOS_PATIENCE", client.PATIENCE))
ROOT_URLCONF = "tests.e2e.cache.urls"
