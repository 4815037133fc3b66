"""The app with the models of the Django contenders."""

from django.apps import AppConfig


class ShopConfig(AppConfig):
    name = "ops.tools.lab.contenders.shop"
