"""Django's settings, in sections. What a deployment may choose is read from the environment by env.py."""

from config import env
from ops import cpus
from ops.instruments.budget import Budget
from ops.instruments.logs import configuration, passwords_of
from ops.postgres.options import PoolOptions, startup_options

# --- Mode and secrets -----------------------------------------------------------------------------

DEBUG = env.boolean("DEBUG", default=False)
SECRET_KEY = env.secret(
    "SECRET_KEY",
    # 256 bits, if each character held a byte. `manage.py check --deploy` asks for 50 characters.
    shortest=1 if DEBUG else 32,
    example='"$(openssl rand -base64 48)"',
    default="development-only-key-that-signs-nothing-of-value" if DEBUG else None,
)
ALLOWED_HOSTS = env.hosts("ALLOWED_HOSTS", default=["*"] if DEBUG else None)

# The instruments of development, which the last section sets up. The debug toolbar is on where it is installed.
PROFILE = env.package("PROFILE", ["silk"], lock="requirements/profile.txt")
TOOLBAR = DEBUG and env.is_installed("debug_toolbar")
INSTRUMENTED = bool(PROFILE) or TOOLBAR

# --- Release --------------------------------------------------------------------------------------

VERSION = "0.1.0"
# What was built: a commit, say. The image sets it.
REVISION = env.word("REVISION", pattern=r"[\w.+-]{1,64}", what="a revision", default="unknown")

# --- Server (gunicorn.conf.py) --------------------------------------------------------------------

PORT = env.integer("PORT", least=1, most=65535, default=8000)
# 2 x cores + 1, the usual formula. An event loop waits less than a thread, so fewer can have a better p99. The
# toolbar's history is in a worker's memory: with several, a page would ask one for what another keeps.
WORKERS = 1 if TOOLBAR else int(2 * cpus.available()) + 1
WEB_CONCURRENCY = env.integer("WEB_CONCURRENCY", least=1, most=512, default=WORKERS)

# Seconds from SIGTERM until a worker stops to accept, while /readyz says so. Kubernetes takes a pod out of its
# services while it stops the pod: without a pause, connections still come to a port that is closed.
DRAIN_SECONDS = env.integer("DRAIN_SECONDS", least=0, most=300, default=0)

# Django's own handler ("stock") in place of the lean one, which changes speed and not behaviour: to prove that,
# and for tools that reach into it.
ASGI_HANDLER = env.choice("ASGI_HANDLER", ["lean", "stock"], default="stock" if PROFILE else "lean")

# --- Application ----------------------------------------------------------------------------------

INSTALLED_APPS = ["ops.apps.OpsConfig", "api.apps.ApiConfig", "products.apps.ProductsConfig"]
ROOT_URLCONF = "config.urls"
ASGI_APPLICATION = "config.asgi.application"
SYNC_VIEWS = ["api.docs"]  # modules whose views serve pages for people and may be sync (ops.W010)
APPEND_SLASH = False  # a path has one spelling; a redirect would cost a round trip and lose a POST's body
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
TIME_ZONE = "UTC"
USE_I18N = False  # an API has one language; translated strings would be looked up lazily for each use

# None: each of Django's costs an API request two thread hops under ASGI. What they do belongs in pure ASGI.
MIDDLEWARE: list[str] = []
SILENCED_SYSTEM_CHECKS = [
    "security.W001",  # no SecurityMiddleware: headers are set in pure ASGI, TLS is the proxy's
    "security.W002",  # no XFrameOptionsMiddleware: the same
    "security.W003",  # no CsrfViewMiddleware: nothing here trusts what a browser sends by itself, such as a cookie
]

# Django spools and parses no body beyond this. 1,000 products take 250 kB.
DATA_UPLOAD_MAX_MEMORY_SIZE = 1024 * 1024

# --- Postgres -------------------------------------------------------------------------------------

DATABASE = env.database_url("DATABASE_URL")
if not DEBUG:
    env.refuse_published(ALLOWED_HOSTS, SECRET_KEY=SECRET_KEY, DATABASE_URL=DATABASE["PASSWORD"])
# Whether PgBouncer or its like stands between, in any mode. Then nothing may outlive a transaction: no prepared
# statements, no cursors on the server, and SESSION and REQUEST_SESSION are the role's to bring (ops.E061, ops.W062).
DATABASE_POOLER = env.boolean("DATABASE_POOLER", default=False)
# What every session has. The lock timeout, in milliseconds, holds for migrations too: behind one that waits for a
# lock, every request queues.
SESSION = {"TimeZone": "UTC", "lock_timeout": 500}
# The sync ORM's, in each worker: sync views. Requests read through a pool of their own.
SYNC_POOL = {
    "min_size": 0,  # many workers: an idle one holds no connection
    "max_size": 4,  # workers x pools x 4 must stay below max_connections - 13 (ops.W060)
    "timeout": 2.0,  # seconds, as connect_timeout: a first connection gets its whole chance
    "max_waiting": 8,  # beyond that a queue only makes everyone late
    "max_lifetime": 1800.0,  # seconds: a new replica or password takes hold within half an hour
    "reconnect_timeout": 3.0,  # seconds; psycopg's own 300 s would back off for minutes
}
DATABASES = {
    "default": {
        **DATABASE,
        "CONN_MAX_AGE": 0,  # the pool keeps connections; under ASGI any other value leaks them
        "CONN_HEALTH_CHECKS": True,  # the pool then checks a connection before it lends it
        "DISABLE_SERVER_SIDE_CURSORS": DATABASE_POOLER,
        "OPTIONS": {
            "application_name": "sub10",  # as pg_stat_activity shows it
            "connect_timeout": 2,  # seconds; libpq's least
            # A dead peer is noticed after 5 + 3 x 2 = 11 s of silence, unacknowledged data after 5 s.
            # libpq ignores these four on a unix socket.
            "keepalives_idle": 5,
            "keepalives_interval": 2,
            "keepalives_count": 3,
            "tcp_user_timeout": 5000,  # milliseconds
            # psycopg's own default, which Django switches off. For compiled queries: the ORM binds its
            # parameters on the client and never prepares.
            "prepare_threshold": None if DATABASE_POOLER else 5,
            # Set as the session starts, so that no SET costs a round trip. PgBouncer refuses it.
            "options": "" if DATABASE_POOLER else startup_options(SESSION),
            "pool": SYNC_POOL,  # manage.py does without
            **DATABASE["OPTIONS"],
        },
    }
}

# Requests read through a pool of their own in each worker (ops/postgres/pool.py).
NATIVE_POOL = PoolOptions(
    prepare=not DATABASE_POOLER,
    max_size=4,  # an event loop on one core keeps no more busy
    # 32 connections can all come to one worker: with 8, a sixth of their requests was refused (lab, list100, 2
    # workers). 64 take some 25 ms to be served; what comes beyond that would only make everyone late.
    max_waiting=64,
    timeout=0.5,
    connect_timeout=2.0,
    deadline=2.0,  # statement_timeout ends what merely takes long; this is for a server that is gone or frozen
    borrow=600.0,
    max_lifetime=1800.0,
    reconnect_timeout=3.0,  # psycopg_pool's own 300 s would back off for minutes
)

# What a request's session has besides; config/asgi.py applies it. Commands have no such limits: a migration or a
# backfill over 10 million rows takes the time it takes.
REQUEST_SESSION = {
    "statement_timeout": 1000,  # milliseconds
    "idle_in_transaction_session_timeout": 5000,
    # For disks without a moving head. With Postgres's 4, a prepared page of a category between two dates read all
    # 4,762 rows of it and sorted them (100,000 products); with 1.1 every page of every path reads its index in order,
    # at 10 thousand to 10 million rows, even by plans that know no parameters (tests/products/test_plans.py).
    "random_page_cost": 1.1,
}

# --- Redis ----------------------------------------------------------------------------------------

REDIS_URL = env.redis_url("REDIS_URL")
# Services that share a Redis have different prefixes: an entry of one would be an answer of the other.
CACHE_PREFIX = env.word(
    "CACHE_PREFIX", pattern=r"[\w-]{1,50}", what="letters, digits, - and _", default="sub10"
)
# Whole answers: in each worker and in Redis ("on"), in Redis only ("l2"), or nowhere ("off").
PAGE_CACHE = env.choice("PAGE_CACHE", ["on", "l2", "off"], default="off" if INSTRUMENTED else "on")

# Django's cache, for what is no whole answer: cache.get(), cache.set(), cache.delete_pattern().
CACHES = {
    "default": {
        "BACKEND": "django_redis.cache.RedisCache",
        "KEY_PREFIX": f"{CACHE_PREFIX}:django",
        "LOCATION": [REDIS_URL],  # a list: a string would be split at a password's comma
        "OPTIONS": {
            "CONNECTION_POOL_KWARGS": {
                # A cache that takes longer than the database is of no use. Seconds.
                "socket_connect_timeout": 0.05,
                "socket_timeout": 0.05,
                "retry": None,
                "max_connections": 16,  # as many as a worker has requests in flight
            },
            "IGNORE_EXCEPTIONS": True,  # the cache is optional: without it each read is a miss, not an error
            "SERIALIZER": "django_redis.serializers.json.JSONSerializer",  # unpickling runs what it finds
        },
    }
}

# --- Instruments ----------------------------------------------------------------------------------

# Where a request's time may go, in seconds: 10 ms in all. Timed in ops/asgi/telemetry.py.
LATENCY_BUDGET = Budget(middleware=0.001, auth=0.001, db=0.004, serialisation=0.002, response=0.002)

METRICS_PORT = env.integer("METRICS_PORT", least=0, most=65535, default=9100)  # 0: no metrics
METRICS_HOST = env.word(
    "METRICS_HOST", pattern=env.HOST_NAME, what="a name or an address", default="127.0.0.1"
)

LOG_LEVEL = env.choice("LOG_LEVEL", ["debug", "info", "warning", "error", "critical"], default="info").upper()
LOG_FORMAT = env.choice("LOG_FORMAT", ["json", "console"], default="console" if DEBUG else "json")
ACCESS_LOG = env.fraction("ACCESS_LOG", default=0.0)  # the share of requests that get a line
# A function, so that who prints the settings prints no secret.
LOGGING = configuration(
    level=LOG_LEVEL,
    form=LOG_FORMAT,
    secrets=lambda: [SECRET_KEY, DATABASE["PASSWORD"], *passwords_of(REDIS_URL)],
)

# --- Instruments of development (docs/profiling.md) -----------------------------------------------

if INSTRUMENTED:
    INSTALLED_APPS.append("django.contrib.staticfiles")
    STATIC_URL = "/static/"
    TEMPLATES = [
        {
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "APP_DIRS": True,
            "OPTIONS": {"context_processors": ["django.template.context_processors.request"]},
        }
    ]

if PROFILE == "silk":
    INSTALLED_APPS.append("silk")
    SILKY_MIDDLEWARE_CLASS = "ops.profiling.SilkMiddleware"
    MIDDLEWARE.append(SILKY_MIDDLEWARE_CLASS)
    SILK_RECORDS = r"/api/(?!docs|openapi\.json)"  # requests with such a path
    SILKY_MAX_RECORDED_REQUESTS = 1000
    SILKY_MAX_REQUEST_BODY_SIZE = SILKY_MAX_RESPONSE_BODY_SIZE = 64 * 1024  # of a larger body nothing is kept
    # Starred out: headers of these names, besides Authorization and Cookie, and what in a body has such a name.
    SILKY_SENSITIVE_KEYS = {"x-api-key", "proxy-authorization", "key", "token", "secret", "password"}

if TOOLBAR:
    INSTALLED_APPS.append("debug_toolbar")
    MIDDLEWARE.append("debug_toolbar.middleware.DebugToolbarMiddleware")
    INTERNAL_IPS = ["127.0.0.1", "::1"]  # who gets to see it
    # Those that have something to say of an API, and nothing secret: headers hold keys, settings hold passwords.
    DEBUG_TOOLBAR_PANELS = [
        "debug_toolbar.panels.history.HistoryPanel",
        "debug_toolbar.panels.timer.TimerPanel",
        "debug_toolbar.panels.sql.SQLPanel",
        "debug_toolbar.panels.cache.CachePanel",
    ]
    DEBUG_TOOLBAR_CONFIG = {"UPDATE_ON_FETCH": True}  # an open page shows the request that it made last
