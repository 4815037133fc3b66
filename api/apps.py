from django.apps import AppConfig
from django.core.checks import register
from django.urls import register_converter
from django.urls.converters import IntConverter

from api.cache.querysets import connect_signals
from api.checks import check_authenticate, check_documentation, check_listings, check_policies


class IdConverter(IntConverter):
    """`{id:product_id}` in a path is a positive integer without leading zeros, so that a resource has one URL."""

    regex = "[1-9][0-9]{0,18}"


class ApiConfig(AppConfig):
    name = "api"

    def ready(self) -> None:
        connect_signals()
        register(check_listings)
        register(check_policies)
        register(check_documentation)
        register(check_authenticate)
        register_converter(IdConverter, "id")
