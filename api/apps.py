from django.apps import AppConfig
from django.core.checks import register
from django.urls import register_converter

from api.cache.querysets import connect
from api.checks import check_listings, check_policies
from api.paths import IdConverter


class ApiConfig(AppConfig):
    name = "api"

    def ready(self) -> None:
        connect()
        register(check_listings)
        register(check_policies)
        register_converter(IdConverter, "id")
