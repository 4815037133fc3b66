from django.apps import AppConfig


class IdempotencyConfig(AppConfig):
    name = "api.idempotency"
    label = "api_idempotency"
    verbose_name = "Idempotency keys"
