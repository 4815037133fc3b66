"""Django on WSGI with threads. Each thread keeps its connection, as Django's documentation recommends."""

from ops.tools.lab.contenders.shop.database import database

SECRET_KEY = "signs nothing"
ALLOWED_HOSTS = ["127.0.0.1"]
INSTALLED_APPS = ["rest_framework", "ops.tools.lab.contenders.shop"]
ROOT_URLCONF = "ops.tools.lab.contenders.drf.urls"
DATABASES = {"default": database(CONN_MAX_AGE=None)}
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
REST_FRAMEWORK = {  # a public API in JSON: no sessions, no users, no HTML
    "DEFAULT_AUTHENTICATION_CLASSES": [],
    "DEFAULT_PERMISSION_CLASSES": [],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "UNAUTHENTICATED_USER": None,
}
