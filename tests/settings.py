"""The service's settings with the shop among its applications, and the shop's routes in the place of the others."""

import os
from dataclasses import replace

from config.settings import *  # noqa: F403  that is what a settings module's variant is
from config.settings import INSTALLED_APPS, NATIVE_POOL, REQUEST_SESSION, SYNC_VIEWS

INSTALLED_APPS = [*INSTALLED_APPS, "tests.shop.apps.ShopConfig"]
SYNC_VIEWS = [*SYNC_VIEWS, "tests.shop.plain"]
ROOT_URLCONF = "tests.shop.urls"

# The service that many tests share. A busy machine may take a second for what takes a millisecond.
if "TESTED_WITHOUT_HASTE" in os.environ:
    REQUEST_SESSION = {**REQUEST_SESSION, "statement_timeout": 10_000}
    NATIVE_POOL = replace(NATIVE_POOL, timeout=10, deadline=15)
