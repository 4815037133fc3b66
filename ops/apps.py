from django.apps import AppConfig
from django.core.checks import Tags, register
from django.db.backends.signals import connection_created

from ops.checks import TAG, cache, database, installed, middleware, postgres, private_apis, server, views
from ops.postgres.timing import time_queries

ALWAYS = (
    *(server.check_asgi, server.check_worker_count, private_apis.check_private_apis),
    *(views.check_views, views.check_pagination, views.check_writes, views.check_loops),
    views.check_root_path,
    *(middleware.check_sync_middleware, middleware.check_middleware_mixin),
    *(installed.check_rest_framework, installed.check_profilers),
    *(database.check_conn_max_age, database.check_pool, database.check_atomic_requests),
    *(database.check_statement_timeout, database.check_pooler),
    *(cache.check_cache, cache.check_hiredis, cache.check_redis_rights),
)
DEPLOYED = (server.check_worker_class, server.check_recycling, server.check_layers, installed.check_debug)
ASKING_POSTGRES = (postgres.check_connections, postgres.check_sessions)
ASKING_POSTGRES_DEPLOYED = (postgres.check_two_releases,)


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
        for check in ASKING_POSTGRES_DEPLOYED:
            register(check, TAG, Tags.database, deploy=True)
