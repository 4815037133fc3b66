"""The settings of `ninja_sync` with the cache of `drf_cache`, for the URLs of cached_urls.py."""

from ops.tools.lab.contenders.drf_cache.redis import CACHES as REDIS
from ops.tools.lab.contenders.ninja_sync.settings import *  # noqa: F403

ROOT_URLCONF = "ops.tools.lab.contenders.ninja_sync_writes.cached_urls"
CACHES = REDIS
