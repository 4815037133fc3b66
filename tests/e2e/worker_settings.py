"""The settings of tests, with routes that harm their worker, which is replaced soon and complains often."""

import os

from ops.gunicorn import outgrown
from ops.telemetry import loop_lag
from tests.settings import *  # noqa: F403  that is what a settings module's variant is

outgrown.SERVES_SECONDS = float(os.environ.get("SERVES_SECONDS", outgrown.SERVES_SECONDS))
loop_lag.SAME_SECONDS = float(os.environ.get("SAME_BLOCK_SECONDS", loop_lag.SAME_SECONDS))
ROOT_URLCONF = "tests.e2e.worker_urls"
