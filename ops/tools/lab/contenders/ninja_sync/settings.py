"""Django on WSGI with threads. Each thread keeps its connection, as Django's documentation recommends."""

from ops.tools.lab.contenders.shop.database import database

SECRET_KEY = "signs nothing"
ALLOWED_HOSTS = ["127.0.0.1"]
INSTALLED_APPS = ["ops.tools.lab.contenders.shop"]
ROOT_URLCONF = "ops.tools.lab.contenders.ninja_sync.urls"
DATABASES = {"default": database(CONN_MAX_AGE=None)}
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
