from django.apps import AppConfig


class ProductsConfig(AppConfig):
    name = "products"
    seed = "seed_products"  # the command that `manage.py seed` runs
