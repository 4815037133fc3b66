"""Every undocumented name of a library that this service uses: docs/decisions/0018-private-apis.md says why.

A release of a library may rename one without a word. So all are looked up when a process starts to serve
(config/asgi.py) and by `manage.py check`: a missing name is then one line, and not the error of a request.
"""

from collections.abc import Mapping
from contextlib import suppress
from inspect import isfunction
from pkgutil import resolve_name
from typing import Any

from django.core.exceptions import ImproperlyConfigured

from ops.checks.messages import Messages, error

# By package: each class or module, and its names. A name may be an attribute that a method of the class sets.
PRIVATE: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "django": {
        "django.core.cache.caches": ("_connections",),
        "django.core.handlers.asgi": ("get_script_prefix",),
        "django.core.handlers.asgi.ASGIHandler": (
            *("chunk_size", "create_request", "get_response_async", "handle", "listen_for_disconnect"),
            *("process_exception_by_middleware", "read_body", "resolve_request", "run_get_response"),
            *("send_response", "_middleware_chain", "_get_response_async", "_view_middleware"),
            *("_exception_middleware", "_template_response_middleware", "check_response", "make_view_atomic"),
        ),
        "django.core.handlers.base": ("reset_urlconf",),
        "django.db.backends.base.base.BaseDatabaseWrapper": (
            *("execute_wrappers", "run_on_commit", "savepoint_ids"),
        ),
        "django.db.backends.base.operations.BaseDatabaseOperations": ("integer_field_ranges",),
        "django.db.backends.postgresql.base.DatabaseWrapper": (
            *("_connection_pools", "get_connection_params", "get_new_connection", "pool"),
        ),
        "django.db.models.Field": ("_db_default_expression", "has_db_default"),
        "django.db.models.fields.tuple_lookups": ("Tuple", "TupleGreaterThan", "TupleLessThan"),
        "django.db.models.sql.DeleteQuery": ("chain", "clear_ordering"),
        "django.db.models.sql.InsertQuery": ("insert_values",),
        "django.db.models.expressions.Col": ("target",),
        "django.db.models.sql.Query": (
            *("alias_map", "alias_refcount", "annotations", "chain", "clear_ordering", "combinator"),
            *("count_active_tables", "distinct", "distinct_fields", "get_compiler", "group_by", "is_sliced"),
            *("order_by", "values_select", "where"),
        ),
        "django.db.models.sql.UpdateQuery": ("add_update_fields", "add_update_values"),
        "django.db.models.sql.compiler.SQLCompiler": ("as_sql", "compile", "execute_sql"),
        "django.db.models.sql.compiler.SQLInsertCompiler": ("as_sql",),
        "django.db.models.sql.constants": ("CURSOR", "INNER"),
        "django.db.models.sql.datastructures.Join": (
            *("join_cols", "join_field", "join_type", "parent_alias", "promote"),
        ),
        "django.dispatch.Signal": ("receivers",),
        "django.http.HttpRequest": ("_files", "_mark_post_parse_error"),
        "django.http.request": ("split_domain_port", "validate_host"),
        "django.http.response.HttpResponseBase": ("_resource_closers",),
        "django.http.response.ResponseHeaders": ("_store",),
        "django.urls.ResolverMatch": ("captured_kwargs",),
        "django.urls.base": ("_prefixes", "_urlconfs"),
        "django.urls.resolvers.RoutePattern": ("regex",),
        "django.urls.resolvers.URLResolver": ("url_patterns",),
        "django.utils.log": ("log_response", "request_logger"),
    },
    "asgiref": {
        "django.urls.base._prefixes": ("_storage",),  # a Local
        "django.urls.base._prefixes._storage": ("_data",),
        "asgiref.sync": ("ThreadSensitiveContext",),
        "asgiref.sync.AsyncToSync": ("executors",),
        "asgiref.sync.SyncToAsync": ("context_to_thread_executor", "thread_sensitive_context"),
    },
    "uvicorn": {
        "uvicorn.Server": (
            *("handle_exit", "on_tick", "server_state", "servers", "should_exit", "shutdown", "started"),
            "startup",
        ),
        "uvicorn.protocols.http.flow_control.FlowControl": (
            *("pause_reading", "read_paused", "resume_reading", "write_paused"),
        ),
        "uvicorn.protocols.http.httptools_impl": ("STATUS_LINE",),
        "uvicorn.protocols.http.httptools_impl.HttpToolsProtocol": (
            *("app", "client", "connection_lost", "connection_made", "cycle", "data_received"),
            *("expect_100_continue", "flow", "headers", "loop", "on_body", "on_header"),
            *("on_headers_complete", "on_message_begin", "on_message_complete", "on_response_complete"),
            *("parser", "pipeline", "scheme"),
            *("scope", "server_state", "shutdown", "timeout_keep_alive", "transport", "url"),
            "_start_asgi_task",
        ),
        "uvicorn.protocols.http.httptools_impl.RequestResponseCycle": (
            *("access_log", "chunked_encoding", "default_headers", "disconnected"),
            *("expected_content_length", "flow", "keep_alive", "message_event"),
            *("more_body", "on_response", "response_complete", "response_started", "scope", "send"),
            *("transport", "waiting_for_100_continue"),
        ),
        "uvicorn.server.ServerState": ("connections", "default_headers", "total_requests"),
    },
    "uvicorn-worker": {"uvicorn_worker.UvicornWorker": ("CONFIG_KWARGS", "_serve", "config")},
    "gunicorn": {
        "gunicorn.arbiter.Arbiter": ("WORKERS", "WORKER_BOOT_ERROR", "manage_workers", "num_workers"),
        "gunicorn.config": ("get_default_config_file",),
        "gunicorn.config.Config": ("set", "settings"),
        "gunicorn.sock": ("TCP6Socket", "TCPSocket"),
        "gunicorn.sock.BaseSocket": ("_is_listening", "bind", "cfg_addr", "close", "conf", "set_options"),
        "gunicorn.util": ("is_ipv6",),
        "gunicorn.workers.base.Worker": ("aborted", "age", "cfg", "ppid", "sockets", "wsgi"),
        "gunicorn.workers.gasgi": ("ASGIWorker",),
    },
    "django-ninja": {
        "ninja.NinjaAPI": ("_get_bound_routers", "_get_urls", "create_temporal_response", "get_content_type"),
        "ninja.Router": ("path_operations",),
        "ninja.operation.Operation": (
            *("api", "auth_callbacks", "auth_param", "is_async", "methods", "models", "openapi_extra", "run"),
            *("signature", "stream_format", "throttle_objects", "view_func"),
            *("_get_values", "_result_to_response"),
        ),
        "ninja.operation.PathView": ("_not_allowed", "get_view", "is_async", "operations"),
    },
    "psycopg": {
        "psycopg.adapt.Transformer": ("as_literal", "get_dumper"),
        "psycopg.errors": ("error_from_result",),
    },
    "prometheus-client": {
        "prometheus_client.CollectorRegistry": ("_collector_to_names",),
        "prometheus_client.Counter": ("_value",),
        "prometheus_client.Histogram": ("_buckets", "_sum", "_upper_bounds"),
        "prometheus_client.Summary": ("_count", "_sum"),
        "prometheus_client.metrics.MetricWrapperBase": (
            *("_child_samples", "_documentation", "_is_parent", "_labelnames", "_labelvalues", "_metrics"),
            *("_name", "_type"),
        ),
        "prometheus_client.mmap_dict": ("mmap_key",),
        "prometheus_client.mmap_dict.MmapedDict": (
            *("_capacity", "_f", "_init_value", "_m", "_used", "close", "read_value", "write_value"),
        ),
        "prometheus_client.utils": ("floatToGoString",),
        "prometheus_client.values": ("MutexValue", "ValueClass"),
    },
    "redis": {
        "redis._parsers.base.BaseParser": ("parse_error",),
        "redis.asyncio.connection.Connection": ("_reader", "_writer"),
        "redis.utils": ("HIREDIS_AVAILABLE",),
    },
}


def missing() -> list[str]:
    """Look all names up; return the missing ones with their package."""
    lacking = []
    for package, owners in PRIVATE.items():
        for owner, names in owners.items():
            known: set[str] = set()
            with suppress(ImportError, AttributeError):
                found: Any = resolve_name(owner)
                known |= {name for name in names if hasattr(found, name)}
                # Attributes that methods of the class use: only its objects may have them.
                for kind in getattr(found, "__mro__", ()):
                    known.update(*(one.__code__.co_names for one in vars(kind).values() if isfunction(one)))
            lacking += [f"{owner}.{name} ({package})" for name in names if name not in known]
    return lacking


def refuse_missing() -> None:
    """Raise ImproperlyConfigured if a name is missing, before anything is served."""
    if names := missing():
        raise ImproperlyConfigured(
            f"These libraries' releases do not fit this service, they lack: {', '.join(names)}. "
            "Install what requirements/ locks. More: docs/decisions/0018-private-apis.md"
        )


def check_private_apis(**_kwargs: Any) -> Messages:
    """Check that the installed releases have all these names."""
    return [
        error("080", f"{name} is missing.", "Install what requirements/runtime.txt locks.")
        for name in missing()
    ]
