"""The settings of `drf` with authentication by API key: reads are public, writes need a key."""

from ops.tools.lab.contenders.drf.settings import *  # noqa: F403
from ops.tools.lab.contenders.drf.settings import REST_FRAMEWORK as READS

ROOT_URLCONF = "ops.tools.lab.contenders.drf_writes.urls"
REST_FRAMEWORK = {
    **READS,
    "DEFAULT_AUTHENTICATION_CLASSES": ["ops.tools.lab.contenders.drf_writes.keys.ApiKeyAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticatedOrReadOnly"],
}
