"""Answers are kept for a time; then requests delete them, a few each, and a command all at once."""

from io import StringIO
from typing import Any

import psycopg
import pytest
from django.core.management import call_command

from api.idempotency.answers import MOST_EXPIRED
from api.idempotency.management.commands import expire_idempotency_keys
from api.idempotency.models import IdempotencyKey
from tests.api.idempotency.conftest import voucher
from tests.service import Service

Rows = psycopg.Connection[Any]
FIELD, REPLAYED = "Idempotency-Key", "idempotency-replayed"
INSERT = """
    INSERT INTO api_idempotency_key (digest, request, status, fields, body, changed, time_created, time_expires)
    SELECT sha256(%s || i::text::bytea), '', 201, '[]', '', '{}', now(), now() + %s::interval
    FROM generate_series(1, %s) AS i
"""


def counted(rows: Rows) -> tuple[int, int]:
    """The answers that are kept, and those that have expired."""
    count = "SELECT count(*) FILTER (WHERE time_expires > now()), count(*) FROM api_idempotency_key"
    kept, all_ = rows.execute(count).fetchone() or (0, 0)
    return kept, all_ - kept


def test_after_its_time_a_key_is_new(workers: list[Service], rows: Rows, key: str) -> None:
    content = voucher()

    def post() -> Any:
        return workers[0].client.post("/api/vouchers", json=content, headers={FIELD: key})

    first = post()
    [[hours]] = rows.execute(
        "SELECT (time_expires - time_created) / 3600 FROM api_idempotency_key"
    ).fetchall()
    assert hours.total_seconds() == 24
    rows.execute("UPDATE api_idempotency_key SET time_expires = now()")
    rows.execute("DELETE FROM shop_voucher WHERE code = %s", [content["code"]])
    anew = post()
    assert (anew.status_code, REPLAYED in anew.headers) == (201, False)
    assert anew.json()["id"] > first.json()["id"]
    assert (post().content, counted(rows)) == (anew.content, (1, 0))


def test_a_request_deletes_a_few(workers: list[Service], rows: Rows, key: str) -> None:
    rows.execute(INSERT, [b"old", "-1 second", 2 * MOST_EXPIRED + 5])
    rows.execute(INSERT, [b"new", "1 hour", 3])
    for left in (MOST_EXPIRED + 5, 5, 0):
        sent = workers[0].client.post("/api/vouchers", json=voucher(), headers={FIELD: f"{key}-{left}"})
        assert sent.status_code == 201
        assert counted(rows)[1] == left
    assert counted(rows) == (6, 0)


def test_rows_that_another_request_deletes_hold_none_up(
    workers: list[Service], rows: Rows, shared: Any, key: str
) -> None:
    rows.execute(INSERT, [b"old", "-1 second", MOST_EXPIRED + 1])
    with shared.connect() as other, other.transaction():
        other.execute("DELETE FROM api_idempotency_key WHERE digest = sha256('old1')")
        sent = workers[0].client.post("/api/vouchers", json=voucher(), headers={FIELD: key})
        assert sent.status_code == 201
    assert counted(rows) == (1, 0)


@pytest.mark.django_db
def test_the_command_deletes_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expire_idempotency_keys, "BATCH", 2)
    from django.db import connection  # noqa: PLC0415

    with connection.cursor() as cursor:
        cursor.execute(INSERT, [b"old", "-1 second", 205])
        cursor.execute(INSERT, [b"new", "1 hour", 3])
    said = StringIO()
    call_command("expire_idempotency_keys", stdout=said)
    assert said.getvalue().splitlines() == ["200 so far", "Deleted 205 answers that had expired."]
    assert IdempotencyKey.objects.count() == 3
    call_command("expire_idempotency_keys", stdout=said)
    assert said.getvalue().splitlines()[-1] == "Deleted 0 answers that had expired."
