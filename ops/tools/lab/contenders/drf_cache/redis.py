"""The settings of `drf` with django-redis, as in its README. Since hiredis is installed, it parses the answers."""

import os

from ops.tools.lab.contenders.drf.settings import *  # noqa: F403

ROOT_URLCONF = "ops.tools.lab.contenders.drf_cache.urls"
CACHES = {
    "default": {
        "BACKEND": "django_redis.cache.RedisCache",
        "LOCATION": os.environ["REDIS_URL"],
        "KEY_PREFIX": os.environ["CACHE_PREFIX"],
        "OPTIONS": {"CLIENT_CLASS": "django_redis.client.DefaultClient"},
    }
}
