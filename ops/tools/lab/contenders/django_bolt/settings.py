"""Django as in Bolt's deployment guide: with Django's own pool, and without request signals, Bolt's default."""

from ops.tools.lab.contenders.shop.database import database

SECRET_KEY = "signs nothing"
ALLOWED_HOSTS = ["127.0.0.1"]
INSTALLED_APPS = ["django_bolt", "ops.tools.lab.contenders.shop"]
BOLT_API = ["ops.tools.lab.contenders.django_bolt.api:api"]
ROOT_URLCONF = "ops.tools.lab.contenders.django_bolt.urls"
DATABASES = {"default": database(OPTIONS={"pool": True})}
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
