"""The settings of `drf` with the routes of the exports."""

from ops.tools.lab.contenders.drf.settings import *  # noqa: F403

ROOT_URLCONF = "ops.tools.lab.contenders.export.urls"
