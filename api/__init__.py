"""All that a resource uses: `from api import Listing, cached`. The modules behind it may change in any release.

| for | |
| --- | --- |
| the API itself | Api |
| a list | Listing, AccessPath, at_least, at_most, below, equals |
| statistics of a list | Stats |
| all rows of a list as a file | Export |
| writes of a list | Writes, Import; BulkWrites, bulk |
| documentation of reads | describe_list, describe_item, describe_stats, describe_export, describe_answer |
| documentation of writes | describe_create, _change, _replace, _delete, _import |
| documentation of writes of many rows | describe_create_many, _change_many, _delete_many |
| schemas | Timestamp, rounded; Children, More |
| compiled reads | One, Total, Groups, Param; gather |
| compiled commands | Insert, Update, Delete; InsertMany, UpdateMany, DeleteMany |
| results of commands | Row, Rows; NotWritten, OutcomeUnknown; digest |
| transactions | transaction, in_transaction; Transaction |
| caching | cached, one |
| invalidation | InvalidatingQuerySet, invalidate, ainvalidate |
| authentication | scope, Identity; AUTH, its stage in Server-Timing |
| errors | Problem, Fault, invalid |
| request bodies | body_limit, streamed_body, stream_of |
| requests that are sent again | idempotent |
| rate limits | rate_class |
| calls to other services | Upstream, Kept; UpstreamUnavailable; together, describe_answer |
"""

from api.auth import Identity, scope
from api.cache.changes import ainvalidate, invalidate
from api.cache.policy import cached, one
from api.cache.querysets import InvalidatingQuerySet
from api.idempotency.once import idempotent
from api.limits import rate_class
from api.ninja import Api
from api.openapi import (
    describe_answer,
    describe_change,
    describe_change_many,
    describe_create,
    describe_create_many,
    describe_delete,
    describe_delete_many,
    describe_export,
    describe_import,
    describe_item,
    describe_list,
    describe_replace,
    describe_stats,
)
from api.problems import Fault, Problem, invalid
from api.reads.access import AccessPath, at_least, at_most, below, equals
from api.reads.export import Export
from api.reads.fields import Timestamp, rounded
from api.reads.listing import Listing
from api.reads.stats import Stats
from api.writes.bulk import BulkWrites, bulk
from api.writes.commands import Delete, DeleteMany, Insert, InsertMany, Update, UpdateMany
from api.writes.imports import Import
from api.writes.resource import Writes
from ops.asgi.bodies import body_limit, stream_of, streamed_body
from ops.http.kept import Kept
from ops.http.upstream import Upstream, UpstreamUnavailable
from ops.postgres.aggregates import Groups, Total
from ops.postgres.commands import NotWritten, Row, Rows
from ops.postgres.compiled import One
from ops.postgres.connection import OutcomeUnknown
from ops.postgres.digests import digest
from ops.postgres.gather import gather
from ops.postgres.nesting import Children, More
from ops.postgres.statement import Param
from ops.postgres.transactions import Transaction, in_transaction, transaction
from ops.tasks import together
from ops.telemetry.stopwatch import AUTH

__all__ = [
    "AUTH",
    "AccessPath",
    "Api",
    "BulkWrites",
    "Children",
    "Delete",
    "DeleteMany",
    "Export",
    "Fault",
    "Groups",
    "Identity",
    "Import",
    "Insert",
    "InsertMany",
    "InvalidatingQuerySet",
    "Kept",
    "Listing",
    "More",
    "NotWritten",
    "One",
    "OutcomeUnknown",
    "Param",
    "Problem",
    "Row",
    "Rows",
    "Stats",
    "Timestamp",
    "Total",
    "Transaction",
    "Update",
    "UpdateMany",
    "Upstream",
    "UpstreamUnavailable",
    "Writes",
    "ainvalidate",
    "at_least",
    "at_most",
    "below",
    "body_limit",
    "bulk",
    "cached",
    "describe_answer",
    "describe_change",
    "describe_change_many",
    "describe_create",
    "describe_create_many",
    "describe_delete",
    "describe_delete_many",
    "describe_export",
    "describe_import",
    "describe_item",
    "describe_list",
    "describe_replace",
    "describe_stats",
    "digest",
    "equals",
    "gather",
    "idempotent",
    "in_transaction",
    "invalid",
    "invalidate",
    "one",
    "rate_class",
    "rounded",
    "scope",
    "stream_of",
    "streamed_body",
    "together",
    "transaction",
]
