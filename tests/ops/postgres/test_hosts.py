"""A DATABASE_URL with several hosts: one that is away, one that takes no writes, and the one that is meant."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, urlencode

import psycopg
import pytest
from django.conf import settings

from ops.tools.embedded.servers import Servers
from tests import spare
from tests.service import serve

pytestmark = pytest.mark.django_db


@pytest.fixture(scope="module")
def standby() -> Iterator[str]:
    """The directory of the socket of a server whose sessions are read-only, as a standby's are."""
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as directory:
        patch.delenv("DATABASE_URL", raising=False)
        with Servers(Path(directory) / "standby", durable=False) as servers:
            with psycopg.connect(servers.postgres.url, autocommit=True) as server:
                server.execute("ALTER SYSTEM SET default_transaction_read_only = on")
                server.execute("SELECT pg_reload_conf()")
            yield str(servers.postgres.sockets)


@pytest.fixture
def url(django_db_setup: None, standby: str) -> str:
    server = settings.DATABASES["default"]
    hosts = {"host": f"/nowhere,{standby},{server['HOST']}", "port": f"5432,5432,{server['PORT'] or 5432}"}
    query = urlencode(hosts | {"target_session_attrs": "read-write"})
    return (
        f"postgresql://{quote(server['USER'])}:{quote(server['PASSWORD'])}@/{quote(server['NAME'])}?{query}"
    )


def test_the_service_reads_from_the_one_that_is_meant(url: str, tmp_path: Path) -> None:
    with serve({"DATABASE_URL": url}, tmp_path) as service:
        service.wait_for(b"connections at worst")
        answers = [
            service.client.get(path) for path in ("/api/products?limit=1", "/api/products/1", "/healthz")
        ]
    assert [answer.status_code for answer in answers] == [200, 200, 200]
    assert "WARNING" not in (tmp_path / "service.log").read_text()


def test_manage(url: str) -> None:
    database = spare.Database(str(settings.DATABASES["default"]["NAME"]))
    checked = database.manage("check", "--database", "default", DATABASE_URL=url)
    assert (checked.returncode, checked.stderr) == (0, "")
    migrated = database.manage("migrate", "--check", DATABASE_URL=url)
    assert migrated.returncode == 0
    stopped = database.manage("migrate", DATABASE_URL=url.replace("read-write", "standby"))
    assert stopped.stderr.startswith("DATABASE_URL: no connection to /nowhere,")
    assert stopped.stderr.count("\n") == 1
