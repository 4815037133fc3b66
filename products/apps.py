from django.apps import AppConfig


class ProductsConfig(AppConfig):
    name = "products"
    seed = "seed_products"  # what `manage.py seed` runs
