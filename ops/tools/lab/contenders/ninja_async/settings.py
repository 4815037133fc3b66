"""Django as in Ninja's async guide: ASGI with Django's own pool, since CONN_MAX_AGE does not work under ASGI."""

from ops.tools.lab.contenders.shop.database import database

SECRET_KEY = "signs nothing"
ALLOWED_HOSTS = ["127.0.0.1"]
INSTALLED_APPS = ["ops.tools.lab.contenders.shop"]
ROOT_URLCONF = "ops.tools.lab.contenders.ninja_async.urls"
DATABASES = {"default": database(OPTIONS={"pool": True})}
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
