"""A transaction that takes its time, and ends in any case."""

import asyncio
import os
import signal
from time import monotonic

import pytest
from psycopg import OperationalError
from psycopg.errors import DiskFull
from pytest_django import Settings

from ops.postgres import long_transaction as module
from ops.postgres.connection import OutcomeUnknown
from ops.postgres.copy_out import TEXTS, copy_out
from ops.postgres.long_transaction import long_transaction
from ops.postgres.pool import Pool
from ops.tools.embedded.postgres import Postgres
from tests.ops.postgres.conftest import Admin
from tests.ops.postgres.test_copy_out import opened
from tests.wiretap import Wiretap


async def test_it_waits_for_its_client_longer_than_a_request_may(pool: Pool, settings: Settings) -> None:
    settings.STREAM_PATIENCE_SECONDS = 7.0
    with opened(pool):
        async with long_transaction() as transaction:
            shown = await transaction.connection.execute("SHOW idle_in_transaction_session_timeout")
            assert await shown.fetchone() == ("14s",)


async def test_a_backend_that_is_frozen_under_the_commit(
    pool: Pool, monkeypatch: pytest.MonkeyPatch, admin: Admin
) -> None:
    monkeypatch.setattr(module, "COMMIT_SECONDS", 0.2)
    began = monotonic()
    with opened(pool):
        async with long_transaction() as transaction:
            pid = transaction.connection.info.backend_pid
            os.kill(pid, signal.SIGSTOP)
            try:
                with pytest.raises(OutcomeUnknown):
                    await transaction.commit()
            finally:
                os.kill(pid, signal.SIGCONT)
    assert monotonic() - began < 5


async def test_a_commit_that_cannot_have_happened(pool: Pool, admin: Admin) -> None:
    """The connection was lost before, or Postgres has refused it: that is no unknown outcome."""
    with opened(pool):
        async with long_transaction() as transaction:
            await transaction.connection.close()
            with pytest.raises(OperationalError) as caught:
                await transaction.commit()
            assert not isinstance(caught.value, OutcomeUnknown)
        async with long_transaction() as transaction:
            await transaction.connection.execute(
                "CREATE TEMPORARY TABLE committed (one int); "
                "CREATE FUNCTION pg_temp.refuse() RETURNS trigger LANGUAGE plpgsql AS "
                "$$BEGIN RAISE 'full' USING ERRCODE = 'disk_full'; END$$; "
                "CREATE CONSTRAINT TRIGGER late AFTER INSERT ON committed DEFERRABLE INITIALLY DEFERRED "
                "FOR EACH ROW EXECUTE FUNCTION pg_temp.refuse(); "
                "SET CONSTRAINTS ALL DEFERRED; INSERT INTO committed VALUES (1)"
            )
            with pytest.raises(DiskFull):
                await transaction.commit()


@pytest.mark.parametrize("options", [{"deadline": 0.3}])
@pytest.mark.parametrize("statement", ["pg_settings", "BEGIN"])
async def test_a_server_that_is_silent_after_the_login(wire: Wiretap, pool: Pool, statement: str) -> None:
    """As PgBouncer is in front of a frozen one."""
    wire.withholds = lambda: any(statement in sql for sql in wire.statements)

    async def begin() -> None:
        async with long_transaction():
            pass

    for work in (begin(), anext(copy_out("SELECT 1::text", (), TEXTS))):
        wire.clear()
        began = monotonic()
        with opened(pool), pytest.raises(OperationalError):
            await work
        assert monotonic() - began < 5
    wire.withholds = lambda: False


@pytest.mark.parametrize("options", [{"deadline": 0.2, "timeout": 0.2}])
async def test_a_postgres_that_answers_nobody(
    pool: Pool, monkeypatch: pytest.MonkeyPatch, admin: Admin, server: Postgres
) -> None:
    """Not even a cancellation; while it answers others, a statement takes its time."""
    monkeypatch.setattr(module, "SILENT_SECONDS", 0.5)
    monkeypatch.setattr(module, "ASK_SECONDS", 0.05)
    sessions = (
        "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
    )
    frozen: list[int] = []
    with opened(pool):
        try:
            async with long_transaction() as transaction:
                await transaction.connection.execute("SELECT pg_sleep(1)")
                frozen = [server.pid, *(pid for (pid,) in admin.execute(sessions).fetchall())]
                for pid in frozen:
                    os.kill(pid, signal.SIGSTOP)
                began = monotonic()
                with pytest.raises(OperationalError):
                    async with asyncio.timeout(10):
                        await transaction.connection.execute("SELECT 1")
                assert monotonic() - began < 5
        finally:
            for pid in frozen:
                os.kill(pid, signal.SIGCONT)
