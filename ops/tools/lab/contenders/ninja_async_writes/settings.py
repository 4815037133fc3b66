"""The settings of `ninja_async` with the URLs of the writes."""

from ops.tools.lab.contenders.ninja_async.settings import *  # noqa: F403

ROOT_URLCONF = "ops.tools.lab.contenders.ninja_async_writes.urls"
