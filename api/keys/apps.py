from django.apps import AppConfig


class KeysConfig(AppConfig):
    name = "api.keys"
    label = "api_keys"
    verbose_name = "API keys"
