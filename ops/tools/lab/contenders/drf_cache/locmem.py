"""The settings of `drf` with Django's cache in memory: each process has a cache of its own, for all its threads."""

from ops.tools.lab.contenders.drf.settings import *  # noqa: F403

ROOT_URLCONF = "ops.tools.lab.contenders.drf_cache.urls"
CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
