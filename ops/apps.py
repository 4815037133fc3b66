from django.apps import AppConfig
from django.core.checks import Tags, register
from django.db.backends.signals import connection_created

from ops.checks import TAG, cache, database, installed, middleware, postgres, server, views
from ops.postgres.timing import time_queries

ALWAYS = (
    *(server.check_asgi, server.check_worker_count),
    *(views.check_views, views.check_pagination),
    *(middleware.check_sync_middleware, middleware.check_middleware_mixin),
    *(installed.check_rest_framework, installed.check_profilers),
    *(database.check_conn_max_age, database.check_pool, database.check_atomic_requests),
    *(database.check_statement_timeout, database.check_pooler),
    *(cache.check_cache, cache.check_hiredis),
)
DEPLOYED = (server.check_worker_class, server.check_recycling, installed.check_debug)
ASKING_POSTGRES = (postgres.check_connections, postgres.check_sessions)


class OpsConfig(AppConfig):
    name = "ops"

    def ready(self) -> None:
        connection_created.connect(time_queries)
        for check in ALWAYS:
            register(check, TAG)
        for check in DEPLOYED:
            register(check, TAG, deploy=True)
        for check in ASKING_POSTGRES:
            register(check, TAG, Tags.database)
