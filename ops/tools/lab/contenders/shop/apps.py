"""The table as the Django contenders see it."""

from django.apps import AppConfig


class ShopConfig(AppConfig):
    name = "ops.tools.lab.contenders.shop"
