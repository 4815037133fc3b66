"""Statistics of a listing's rows: exact, of one moment, and cached for a time.

    PRODUCT_STATS = Stats(PRODUCTS, ProductStats, by=["category"], count=Count("*"), low_price_max=Max("low_price"))

    @router.get("/products/stats", **describe_stats(PRODUCT_STATS))
    @cached(PRODUCT_STATS, fresh=60, stale=86400)
    async def product_stats(request):
        return await PRODUCT_STATS.respond(request)

    {"as_of":"2026-11-20T11:18:42.000000+00:00","estimated_count":10000123,
     "total":{"count":10000000,"low_price_max":"499.99"},
     "groups":[{"category":"garden","count":1250000,"low_price_max":"499.99"},...],"has_more_groups":false}

An exact count takes a scan, seconds for 10 million rows. So no write makes a cached answer invalid; only its age
does. `as_of` tells the moment for which `total` and `groups` are exact. `estimated_count` takes no scan: Postgres
has noted it at its last VACUUM or ANALYZE.
"""

import asyncio
import datetime
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from copy import copy
from functools import cached_property
from hashlib import blake2b
from typing import Any
from weakref import WeakKeyDictionary

import orjson
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import connection
from django.db.models import Aggregate
from django.http import HttpRequest, HttpResponse
from ninja import Schema
from pydantic import create_model
from pydantic_core import PydanticUndefined

from api.problems import Problem
from api.reads import parameters
from api.reads.listing import Listing
from api.reads.parameters import ParameterType, one_of
from ops.postgres.aggregates import Groups, Total, key_member
from ops.postgres.compiled import path_of
from ops.postgres.json_sql import temporal
from ops.postgres.snapshot import read_snapshot
from ops.postgres.statement import Statement

MAX_GROUPS = 1000
MAX_WAITING = 16  # answers that wait while one is computed; a service has fewer kinds of statistics
RETRY_SECONDS = 10
# The lock under which a worker computes one answer while others wait. A lock belongs to one event loop.
_places: "WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock]" = WeakKeyDictionary()
_waiting = 0


class Stats:
    """Aggregates of all rows of a listing, and of groups of rows with the same value in a field.

    `aggregates` are the ORM's Count, Min, Max, Sum and Avg, each for the field of `schema` with its name
    (ops/postgres/aggregates.py has their types). `by` are the fields of the listing's schema to group by: a request
    names one as `by=category`. Raises ImproperlyConfigured if Postgres cannot write the JSON.
    """

    depends_on = None  # on no row: only the age of an answer counts

    def __init__(
        self, listing: Listing, schema: type[Schema], *, by: Sequence[str] = (), **aggregates: Aggregate
    ) -> None:
        self.name = f"{listing.name}.stats"
        self.schema = schema
        self.total = Total(listing.rows, schema, **aggregates)
        self.group_schemas: dict[str, type[Schema]] = {}
        self.groups: dict[str, Groups] = {}
        for name in by:
            path = path_of(listing.schema, name)
            key_member(listing.model, listing.schema, name)  # raises for an object or a list
            info = copy(listing.schema.model_fields[name])
            info.default = PydanticUndefined  # each group has the field
            key: Any = {name: (info.annotation, info)}
            group = create_model(f"{schema.__name__}Key", __base__=Schema, **key)
            named = f"{schema.__name__.removesuffix('Out')}By{name.title().replace('_', '')}"
            self.group_schemas[name] = grouped = create_model(named, __base__=(schema, group))
            rows = listing.rows.order_by().values(path).annotate(**aggregates).order_by(path)
            self.groups[name] = Groups(rows, grouped, limit=MAX_GROUPS)
        self.parameter_types: dict[str, ParameterType] = {"by": one_of([*by])} if by else {}
        table, where = listing.model._meta.db_table, listing.rows.query.where
        estimate = "NULL" if where else "(SELECT reltuples::bigint FROM pg_class WHERE oid = %s::regclass)"
        self._estimate = Statement(
            f"SELECT NULLIF({estimate}, -1)",  # -1: there was no VACUUM or ANALYZE yet
            () if where else (connection.ops.quote_name(table),),
        )
        statements = [self.total.statement, *(groups.statement for groups in self.groups.values())]
        if any(statement.parameters for statement in statements):
            raise ImproperlyConfigured(f"{self.name}: statistics have no parameters.")

    async def respond(self, request: HttpRequest) -> HttpResponse:
        """Compute and answer the statistics of this moment.

        Raises Problem 422 for a wrong parameter, and Problem 503 if other statistics take too long. If Postgres takes
        longer than STATISTICS_SECONDS, raises psycopg.OperationalError, which Api answers with 503.
        """
        by = parameters.read(parameters.string_of(request), self.parameter_types).get("by", "")
        groups = self.groups.get(by)
        scans = [self.total.statement, *([groups.statement] if groups else [])]
        connections = min(len(scans), settings.SNAPSHOT_CONNECTIONS)
        async with _place():
            as_of = datetime.datetime.now(datetime.UTC)
            total, *grouped, estimate = await read_snapshot(
                [*scans, self._estimate], seconds=settings.STATISTICS_SECONDS, connections=connections
            )
        parts = [
            b'{"as_of":"%b","estimated_count":%b'
            % (temporal(as_of).encode(), estimate.get_value(0, 0) or b"null"),
            b',"total":%b' % self.total.read(total),
        ]
        if groups:
            array, has_more = groups.read(grouped[0])
            parts.append(b',"groups":%b,"has_more_groups":%b' % (array, b"true" if has_more else b"false"))
        return HttpResponse(b"".join([*parts, b"}"]), content_type="application/json")

    @property
    def cost(self) -> float:
        """The longest time that an answer takes: the wait for its place, then for Postgres."""
        return float(2 * settings.STATISTICS_SECONDS)

    @property
    def parameters(self) -> Collection[str]:
        return self.parameter_types

    @cached_property
    def form_digest(self) -> str:
        """A digest that changes with the form of the answers."""
        schemas = [each.model_json_schema() for each in (self.schema, *self.group_schemas.values())]
        known = orjson.dumps([self.name, schemas], default=str)
        return blake2b(known, digest_size=4).hexdigest()

    def canonical_query(self, query: str) -> str:
        """Return the same query string for all requests with the same answer. Raises Problem 422."""
        values = parameters.read(query, self.parameter_types)
        return f"by={values['by']}" if values else ""


@asynccontextmanager
async def _place() -> AsyncIterator[None]:
    """Hold the worker's one place for statistics. Raises Problem 503 if it is not free in time, or too many wait."""
    global _waiting  # noqa: PLW0603  the process has as many connections as it has, whoever asks
    place = _places.setdefault(asyncio.get_running_loop(), asyncio.Lock())
    if _waiting >= MAX_WAITING:
        raise _busy()
    _waiting += 1
    try:
        async with asyncio.timeout(settings.STATISTICS_SECONDS):
            await place.acquire()
    except TimeoutError:
        raise _busy() from None
    finally:
        _waiting -= 1
    try:
        yield
    finally:
        place.release()


def _busy() -> Problem:
    return Problem(
        503,
        "This server computes other statistics. Try again later.",
        code="too_many_statistics",
        headers={"Retry-After": str(RETRY_SECONDS)},
    )
