"""The table of kept answers, each under the digest of its Idempotency-Key. It holds no key."""

from django.db import models

from api.idempotency.answers import TABLE


class IdempotencyKey(models.Model):
    digest = models.BinaryField(primary_key=True)  # SHA-256 of the key, the client's name, method and path
    request = models.BinaryField()  # SHA-256 of the content, its type, and the query
    status = models.SmallIntegerField()
    fields = models.JSONField()  # header fields of the answer: pairs, in their order
    body = models.BinaryField()
    changed = models.JSONField()  # rows that the request has changed: primary keys by model
    time_created = models.DateTimeField()
    time_expires = models.DateTimeField()

    class Meta:
        db_table = TABLE
        indexes = (models.Index(fields=("time_expires",), name="api_idempotency_expires"),)

    def __str__(self) -> str:
        return f"{bytes(self.digest).hex()} {self.status}"
