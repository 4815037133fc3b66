"""Postgres, as postgres_exporter sees it."""

from ops.monitoring.grafana.dashboard import Dashboard
from ops.monitoring.grafana.panels import stat, timeseries
from ops.project import NAME

OLD = "the exporter is older than 0.13"
NO_STATEMENTS = (
    "pg_stat_statements is not loaded (`shared_preload_libraries`, `CREATE EXTENSION`), or the exporter runs without "
    "`--collector.stat_statements`"
)


def rate(column: str) -> str:
    """Return the query for the rate of a column of pg_stat_database, for each database but templates."""
    series = f'pg_stat_database_{column}{{datname!~"template.*|"}}'
    return f"sum by (datname) (rate({series}[$__rate_interval]))"


NOW = [
    stat(
        "Postgres",
        "1 while the exporter reaches it.",
        "min(pg_up)",
        unit="short",
        least=1,
        todo="PostgresDown",
    ),
    stat(
        "Connections taken",
        "Of max_connections. A rolling deployment needs the service's part twice.",
        "sum(pg_stat_activity_count) / sum(pg_settings_max_connections)",
        unit="percentunit",
        limit=0.8,
        todo="PostgresConnectionsNearMax",
    ),
    stat(
        "Cache hits",
        "Share of the blocks that were in shared buffers. Below 99%, the working set no longer fits: p99 then is the "
        "disk's.",
        "sum(rate(pg_stat_database_blks_hit[$__rate_interval]))"
        " / (sum(rate(pg_stat_database_blks_hit[$__rate_interval]))"
        " + sum(rate(pg_stat_database_blks_read[$__rate_interval])))",
        unit="percentunit",
        least=0.99,
        todo="StageOverBudget",
    ),
    stat(
        "Longest transaction",
        "While it lasts, vacuum removes nothing that is newer, and its locks stay.",
        "max(pg_stat_activity_max_tx_duration)",
        unit="s",
        limit=60,
        todo="StageOverBudget",
    ),
    stat(
        "Deadlocks",
        "In the last hour. Each ended one transaction with an error: two writes lock the same rows in another order.",
        "sum(increase(pg_stat_database_deadlocks[1h]))",
        unit="short",
        limit=1,
        todo="AvailabilityBudgetBurnsFast",
    ),
    stat(
        "Size",
        "Of all databases.",
        "sum(pg_database_size_bytes)",
        unit="bytes",
        todo="StageOverBudget",
    ),
]
CONNECTIONS = [
    timeseries(
        "Connections by state",
        "`active` run a statement, `idle` belong to a pool that does not need them now, `idle in transaction` hold "
        "locks while the client does something else. At max, Postgres refuses.",
        {
            "{{state}}": "sum by (state) (pg_stat_activity_count) > 0",
            "max_connections": "sum(pg_settings_max_connections)",
        },
        unit="short",
        todo="PostgresConnectionsNearMax",
    ),
    timeseries(
        "Transactions",
        "Under autocommit each statement is one. Rollbacks are failed statements and cancelled requests.",
        {"{{datname}}, commits": rate("xact_commit"), "{{datname}}, rollbacks": rate("xact_rollback")},
        unit="ops",
        todo="AvailabilityBudgetBurnsFast",
    ),
    timeseries(
        "Rows",
        "`read`: looked at by scans and index scans. `fetched`: found through an index. Far more read than fetched "
        "is a scan that lacks its index.",
        {
            "{{datname}}, read": rate("tup_returned"),
            "{{datname}}, fetched": rate("tup_fetched"),
            "{{datname}}, inserted": rate("tup_inserted"),
            "{{datname}}, updated": rate("tup_updated"),
            "{{datname}}, deleted": rate("tup_deleted"),
        },
        unit="ops",
        todo="StageOverBudget",
    ),
    timeseries(
        "Locks",
        "Held or waited for, by mode. `accessexclusivelock` stops all readers of a table: a migration, as a rule.",
        {"{{mode}}": "sum by (mode) (pg_locks_count)"},
        unit="short",
        todo="StageOverBudget",
    ),
]
STATEMENTS = [
    timeseries(
        "Statements that take most of the time",
        "Seconds a second that Postgres spends on each of the first ten; 1 is a core. `SELECT query FROM "
        "pg_stat_statements WHERE queryid = ...` says what it is.",
        {
            "{{queryid}}": "topk(10, sum by (queryid)"
            " (rate(pg_stat_statements_seconds_total[$__rate_interval])))"
        },
        unit="percentunit",
        empty_when=NO_STATEMENTS,
        todo="StageOverBudget",
    ),
    timeseries(
        "Mean time of these statements",
        "A statement that becomes slower while its calls stay the same has lost its plan or its cache.",
        {
            "{{queryid}}": "topk(10, sum by (queryid) (rate(pg_stat_statements_seconds_total[$__rate_interval]))"
            " / sum by (queryid) (rate(pg_stat_statements_calls_total[$__rate_interval])))"
        },
        unit="s",
        limit=0.004,
        empty_when=NO_STATEMENTS,
        todo="StageOverBudget",
    ),
]
TABLES = [
    timeseries(
        "Dead rows",
        "Part of each table's rows that vacuum has yet to remove. Over a fifth, autovacuum cannot keep up, or a long "
        "transaction holds it back.",
        {
            "{{relname}}": "sum by (relname) (pg_stat_user_tables_n_dead_tup)"
            " / (sum by (relname) (pg_stat_user_tables_n_live_tup + pg_stat_user_tables_n_dead_tup) > 0)"
        },
        unit="percentunit",
        limit=0.2,
        empty_when=OLD,
        todo="StageOverBudget",
    ),
    timeseries(
        "Temporary files",
        "Sorts and hashes that did not fit into work_mem. No list of the service sorts: look for reports and psql.",
        {"{{datname}}": rate("temp_bytes")},
        unit="Bps",
        todo="StageOverBudget",
    ),
]
BOARD = Dashboard(
    uid=f"{NAME}-postgres",
    title="Postgres",
    description="Connections, transactions, caches, locks, statements and dead rows, as postgres_exporter sees them.",
    rows={"Now": NOW, "Work": CONNECTIONS, "Statements": STATEMENTS, "Tables": TABLES},
)
