from django.apps import AppConfig
from django.core.checks import register

from api.checks import check_listings


class ApiConfig(AppConfig):
    name = "api"

    def ready(self) -> None:
        register(check_listings)
