"""The settings of `ninja_sync` with the URLs of the writes."""

from ops.tools.lab.contenders.ninja_sync.settings import *  # noqa: F403

ROOT_URLCONF = "ops.tools.lab.contenders.ninja_sync_writes.urls"
