"""Fixtures of the cache's tests: a fleet of services with surroundings that fail on demand."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from django.conf import settings

from tests.e2e.cache.fleet import Fleet, Member, fleet, member, until
from tests.e2e.cache.proxy import Network, network
from tests.e2e.cache.valkey import Valkey, private_valkey
from tests.spare import Database


@pytest.fixture(scope="package")
def links() -> Iterator[Network]:
    with network() as made:
        yield made


@pytest.fixture(scope="package")
def valkey() -> Iterator[Valkey]:
    """A Valkey of its own, in memory only, which a test may harm."""
    with private_valkey() as made:
        yield made


@pytest.fixture(scope="package")
def four(
    django_db_setup: None, valkey: Valkey, links: Network, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Fleet]:
    valkey.start()
    directory = tmp_path_factory.mktemp("fleet")
    with fleet(settings.DATABASES["default"], valkey, links, directory, "on", "on", "on", "on") as made:
        yield made


@pytest.fixture
def workers(four: Fleet) -> Iterator[Fleet]:
    """Four workers in surroundings that are well at first, and that the test may harm."""
    four.mend()
    yield four
    four.mend()


@pytest.fixture(scope="package")
def outsider(four: Fleet, links: Network, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Member]:
    """A service without a page cache, with ways of its own: other workers hear of its writes from Redis only."""
    directory = tmp_path_factory.mktemp("outsider")
    own = links.way(four.wiretap_socket)
    with member(four.wiretap, own, links.way(four.valkey.socket), directory, PAGE_CACHE="off") as made:
        yield made


@pytest.fixture
def mixed(workers: Fleet, outsider: Member, l2: Member) -> Iterator[Fleet]:
    """Two workers with both tiers, one with the second only, one without a cache."""
    yield replace(workers, members=[*workers.members[:2], l2, outsider])
    for other in (outsider, l2):
        other.redis.clear()


@pytest.fixture(scope="package")
def l2(four: Fleet, links: Network, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Member]:
    directory = tmp_path_factory.mktemp("l2")
    own = links.way(four.wiretap_socket)
    with member(four.wiretap, own, links.way(four.valkey.socket), directory, PAGE_CACHE="l2") as made:
        four.listeners += 1
        yield made


@pytest.fixture
def crew(workers: Fleet, links: Network, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Member]:
    """One service with four workers, with long timeouts, for a machine that is busy with tests."""
    directory, way = tmp_path_factory.mktemp("crew"), links.way(workers.valkey.socket)
    own = {"PAGE_CACHE": "on", "REDIS_TIMEOUT_SECONDS": "1.0"}
    with member(workers.wiretap, workers.postgres, way, directory, 4, **own) as made:
        until(lambda: workers.subscribers() == workers.listeners + 4, "the crew's subscriptions")
        yield made


@pytest.fixture
def database(django_db_setup: None) -> Iterator["psycopg.Connection[Any]"]:
    """The services' database, outside any transaction of the test."""
    with closing(Database(str(settings.DATABASES["default"]["NAME"])).connect()) as connection:
        yield connection
