"""Redis or Valkey, as redis_exporter sees it."""

from ops.monitoring.grafana.dashboard import Dashboard
from ops.monitoring.grafana.panels import stat, timeseries
from ops.project import NAME

NOW = [
    stat(
        "Redis",
        "1 while the exporter reaches it.",
        "min(redis_up)",
        unit="short",
        least=1,
        todo="CacheDown",
    ),
    stat(
        "Hit ratio",
        "Share of the reads that found their key. It is low where the workers' own memory takes the hits first.",
        "sum(rate(redis_keyspace_hits_total[$__rate_interval]))"
        " / (sum(rate(redis_keyspace_hits_total[$__rate_interval]))"
        " + sum(rate(redis_keyspace_misses_total[$__rate_interval])))",
        unit="percentunit",
        todo="CacheDown",
    ),
    stat(
        "Keys",
        "In all databases.",
        "sum(redis_db_keys)",
        unit="short",
        todo="CacheDown",
    ),
    stat(
        "Subscriptions",
        "Channels that somebody listens to: the workers' invalidations.",
        "sum(redis_pubsub_channels)",
        unit="short",
        todo="CacheNotInvalidated",
    ),
    stat(
        "Refused",
        "Connections refused in the last hour, since there were maxclients.",
        "sum(increase(redis_rejected_connections_total[1h]))",
        unit="short",
        limit=1,
        todo="CacheDown",
    ),
    stat(
        "Up since",
        "A restart empties a cache: expect misses, and Postgres to work for them.",
        "min(redis_uptime_in_seconds)",
        unit="s",
        todo="CacheDown",
    ),
]
MEMORY = [
    timeseries(
        "Memory",
        "Used, against maxmemory; a maximum of 0 is none, and the machine's memory the limit.",
        {"used": "sum(redis_memory_used_bytes)", "max": "sum(redis_memory_max_bytes)"},
        unit="bytes",
        todo="CacheDown",
    ),
    timeseries(
        "Evicted and expired",
        "`expired` is what a cache does. `evicted` had to go before its time: maxmemory is too small for the pages "
        "that are asked for.",
        {
            "evicted": "sum(rate(redis_evicted_keys_total[$__rate_interval]))",
            "expired": "sum(rate(redis_expired_keys_total[$__rate_interval]))",
        },
        unit="ops",
        todo="CacheDown",
    ),
]
WORK = [
    timeseries(
        "Commands",
        "By command. KEYS, or SCAN in great numbers, does not belong to the service.",
        {"{{cmd}}": "sum by (cmd) (rate(redis_commands_total[$__rate_interval]))"},
        unit="ops",
        todo="CacheDown",
    ),
    timeseries(
        "Time a command",
        "Within Redis, without the network. One that takes a millisecond keeps all others waiting.",
        {
            "{{cmd}}": "sum by (cmd) (rate(redis_commands_duration_seconds_total[$__rate_interval]))"
            " / (sum by (cmd) (rate(redis_commands_total[$__rate_interval])) > 0)"
        },
        unit="s",
        limit=0.001,
        todo="CacheDown",
    ),
    timeseries(
        "Clients",
        "Connected, and blocked by a command that waits, against maxclients.",
        {
            "connected": "sum(redis_connected_clients)",
            "blocked": "sum(redis_blocked_clients)",
            "maxclients": "sum(redis_config_maxclients)",
        },
        unit="short",
        todo="CacheDown",
    ),
    timeseries(
        "Network",
        "A page is some 16 kB: a thousand hits a second in Redis are 16 MB/s.",
        {
            "in": "sum(rate(redis_net_input_bytes_total[$__rate_interval]))",
            "out": "sum(rate(redis_net_output_bytes_total[$__rate_interval]))",
        },
        unit="Bps",
        todo="CacheDown",
    ),
]
BOARD = Dashboard(
    uid=f"{NAME}-redis",
    title="Redis",
    description="Memory, hits, evictions, clients and commands, as redis_exporter sees them.",
    rows={"Now": NOW, "Memory": MEMORY, "Work": WORK},
)
