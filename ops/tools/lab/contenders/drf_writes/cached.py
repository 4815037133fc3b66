"""The settings of `drf_writes` with the cache of `drf_cache`, for the URLs of cached_urls.py."""

from ops.tools.lab.contenders.drf_cache.redis import CACHES as REDIS
from ops.tools.lab.contenders.drf_writes.settings import *  # noqa: F403

ROOT_URLCONF = "ops.tools.lab.contenders.drf_writes.cached_urls"
CACHES = REDIS
