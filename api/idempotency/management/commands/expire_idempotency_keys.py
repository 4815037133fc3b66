"""Deletes all answers that have expired. Requests with a key delete a few each; the command is for a large table."""

from typing import Any

from django.core.management.base import BaseCommand
from django.db import connection

from api.idempotency.answers import EXPIRE

BATCH = 1000  # rows that a statement deletes; each is a transaction


class Command(BaseCommand):
    help = "Deletes the kept answers of requests with an Idempotency-Key whose time is over."

    def handle(self, *_args: Any, **_options: Any) -> None:
        total, batches = 0, 0
        with connection.cursor() as cursor:
            while True:
                cursor.execute(EXPIRE, [b"", BATCH])
                if not cursor.rowcount:
                    break
                total, batches = total + cursor.rowcount, batches + 1
                if batches % 100 == 0:
                    self.stdout.write(f"{total:,} so far")
        self.stdout.write(f"Deleted {total:,} answers that had expired.")
