from django.apps import AppConfig
from django.core.checks import register
from django.urls import register_converter

from api.checks import check_listings
from api.paths import IdConverter


class ApiConfig(AppConfig):
    name = "api"

    def ready(self) -> None:
        from api.cache.querysets import connect  # noqa: PLC0415  models are loaded by now, and not before

        connect()
        register(check_listings)
        register_converter(IdConverter, "id")
