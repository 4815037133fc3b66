"""Django's settings, in sections. env.py reads a deployment's choices from the environment."""

from config import env
from ops import project
from ops.gunicorn.limits import Limits
from ops.machine import concurrency
from ops.postgres.options import PoolOptions, startup_options
from ops.telemetry.budget import Budget
from ops.telemetry.logs import configuration, passwords_of, values_of

# --- Mode and secrets -----------------------------------------------------------------------------

DEBUG = env.boolean("DEBUG", default=False)
# 256 bits, if each character held a byte. `manage.py check --deploy` asks for 50 characters.
SHORTEST_SECRET = 1 if DEBUG else 32
SECRET_KEY = env.secret(
    "SECRET_KEY",
    shortest=SHORTEST_SECRET,
    example='"$(openssl rand -base64 48)"',
    default="development-only-key-that-signs-nothing-of-value" if DEBUG else None,
)
# Keys that still verify cursors, while SECRET_KEY signs them: earlier keys, or the next one.
SECRET_KEY_FALLBACKS = env.secrets(
    "SECRET_KEY_FALLBACKS", shortest=SHORTEST_SECRET, example='"$SECRET_KEY_OF_BEFORE"'
)
ALLOWED_HOSTS = env.hosts("ALLOWED_HOSTS", default=["*"] if DEBUG else None)

# The instruments of development, which the last section sets up. With DEBUG, the debug toolbar is on if it is
# installed.
PROFILE = env.package("PROFILE", ["silk"], lock="requirements/profile.txt")
TOOLBAR = DEBUG and env.is_installed("debug_toolbar")
INSTRUMENTED = bool(PROFILE) or TOOLBAR

# --- Release --------------------------------------------------------------------------------------

NAME, VERSION = project.NAME, project.VERSION  # from pyproject.toml
# The build, such as a commit. The image sets it.
REVISION = env.word("REVISION", pattern=r"[\w.+-]{1,64}", what="a revision", default="unknown")

# --- Server (gunicorn.conf.py) --------------------------------------------------------------------

PORT = env.integer("PORT", least=1, most=65535, default=8000)
# The toolbar's history is in a worker's memory: with several, a page would ask the wrong one for it.
WORKERS = 1 if TOOLBAR else concurrency.workers()
WEB_CONCURRENCY = env.integer("WEB_CONCURRENCY", least=1, most=512, default=WORKERS)
# Seconds that a connection may be idle. The proxy in front must close it earlier, or may send a request just as this
# side closes: nginx and AWS's load balancer keep connections for 60, Heroku's router for 90, Google's load balancer
# for 600.
KEEPALIVE = env.integer("KEEPALIVE", least=1, most=3600, default=65)

# Seconds from SIGTERM until a worker stops accepting connections; /readyz fails meanwhile. Kubernetes takes a pod out
# of its services while it stops the pod: without a pause, connections still come to a port that is closed.
DRAIN_SECONDS = env.integer("DRAIN_SECONDS", least=0, most=300, default=0)

# Whether a second release may listen on PORT beside this one, for a deployment without a proxy: see Deploys in
# docs/reliability.md. Linux only.
REUSE_PORT = env.boolean("REUSE_PORT", default=False)

# MiB of memory beyond which a worker is replaced, once its requests are answered; 0: no limit. A worker has 100 when
# it starts, shared pages included, and its page cache takes 32 at most (ops/gunicorn/outgrown.py).
WORKER_MEMORY_LIMIT = env.integer("WORKER_MEMORY_LIMIT", least=0, most=1024 * 1024, default=512)

REQUEST_LIMITS = Limits()  # limits of size and time of a request

# The prefix that a proxy removes from a path before it passes a request on. Links and the documentation contain it.
ROOT_PATH = env.word(
    "ROOT_PATH",
    pattern=r"(/(?!\.+(/|$))[A-Za-z0-9._~-]+)+",
    what="a path with a slash before each part and none at the end",
    default="",
    example="/shop",
)
# Addresses of proxies. Their X-Forwarded-For, -Proto and -Prefix are trusted; any client can write these fields.
TRUSTED_PROXIES = env.networks("TRUSTED_PROXIES")
# Requests that a client, known by its name or address, may send, for each class of routes (api/limits.py). The method
# decides between `read` and `write`; an endpoint's @rate_class names any other. A client may spend a quota at once.
RATE_LIMITS = {
    "read": env.rate("RATE_LIMIT_READ", default="off"),
    "write": env.rate("RATE_LIMIT_WRITE", default="100/s"),
    "bulk": env.rate("RATE_LIMIT_BULK", default="10/s"),
}
# Requests that each worker computes at once; others are answered 503. 0: as many as it can answer in time
# (ops/asgi/admission.py).
ADMISSION_LIMIT = env.integer("ADMISSION_LIMIT", least=0, most=10_000, default=0)
CORS_ORIGINS = env.origins("CORS_ORIGINS")  # of the web pages that may read answers

# Header fields for browsers, added to every answer that lacks them (ops/asgi/security.py). An API is no page: it
# loads nothing, and no page may frame it. The documentation page has a policy of its own (api/docs.py), the pages of
# the instruments have none.
SECURITY_HEADERS = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "same-origin"}
if not INSTRUMENTED:
    SECURITY_HEADERS["Content-Security-Policy"] = "default-src 'none'; frame-ancestors 'none'"
# For how long a browser that has used https asks for this host by https only; 0: no Strict-Transport-Security.
HSTS_SECONDS = env.integer("HSTS_SECONDS", least=0, most=10**9, default=0)

# "stock" runs Django's handler, psycopg's pool and uvicorn's server as they come, in place of this service's own. The
# answers stay the same (docs/how-it-works.md has the exceptions). It is there to prove that, to find out whether the
# lean runtime causes an incident, and for tools that reach into Django's handler.
RUNTIME = env.choice("RUNTIME", ["lean", "stock"], default="stock" if PROFILE else "lean")

# --- Application ----------------------------------------------------------------------------------

INSTALLED_APPS = [
    "ops.apps.OpsConfig",
    "api.apps.ApiConfig",
    "api.keys.apps.KeysConfig",
    "api.idempotency.apps.IdempotencyConfig",
    "products.apps.ProductsConfig",
]
ROOT_URLCONF = "config.urls"
ASGI_APPLICATION = "config.asgi.application"
SYNC_VIEWS = ["api.docs"]  # modules with pages for people; their views may be sync (ops.W010)
APPEND_SLASH = False  # a path has one spelling; a redirect would cost a round trip and lose a POST's body
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
TIME_ZONE = "UTC"
# Only the instruments have static files, but Django's live server for tests needs the setting.
STATIC_URL = "/static/"
USE_I18N = False  # an API has one language; translated strings would be looked up lazily for each use

# Empty: each of Django's own costs an API request two thread hops under ASGI. Write a pure ASGI layer instead.
MIDDLEWARE: list[str] = []
SILENCED_SYSTEM_CHECKS = [
    "security.W001",  # no SecurityMiddleware: SECURITY_HEADERS are set in pure ASGI, TLS is the proxy's
    "security.W002",  # no XFrameOptionsMiddleware: frame-ancestors of Content-Security-Policy says the same
    "security.W003",  # no CsrfViewMiddleware: nothing here trusts a browser's automatic credentials, such as a cookie
]

# The function that turns a credential into the client's identity. docs/auth.md has one for the JWTs of an OpenID
# provider.
AUTHENTICATE = "api.keys.lookup.authenticate"

# For how long the answer to a request with an Idempotency-Key is kept: a repetition gets it, and is not executed.
IDEMPOTENCY_HOURS = env.integer("IDEMPOTENCY_HOURS", least=1, most=8760, default=24)

# The default Cache-Control. A cache may keep an answer without it, even an error or one client's data
# (ops/asgi/stock.py).
CACHE_CONTROL = "no-store"

# Bytes of content that a view takes, unless it has a @body_limit (ops/asgi/bodies.py): a larger body is
# refused before it is read. 1,000 rows of the sample take 250 kB.
BODY_LIMIT = 1024 * 1024
# Bytes of one request that Django reads into memory, for any view: `request.body`, or fields of a form.
DATA_UPLOAD_MAX_MEMORY_SIZE = 4 * BODY_LIMIT

# Bytes of an import (api/writes/imports.py). Memory never holds all: Postgres has them twice, in temporary tables.
IMPORT_LIMIT = env.integer("IMPORT_LIMIT", least=1, most=2**50, default=1024**3)
# Imports that run in each worker at once, each on a connection of its own. One more is answered 503.
IMPORT_CONCURRENCY = env.integer("IMPORT_CONCURRENCY", least=1, most=16, default=1)
IMPORT_SECONDS = 3600.0  # until the commit begins
# Exports that run in each worker at once (api/reads/export.py), each on a connection of its own. One more gets 503.
EXPORT_CONCURRENCY = env.integer("EXPORT_CONCURRENCY", least=1, most=16, default=1)
EXPORT_SECONDS = 3600.0  # until Postgres ends an export: VACUUM keeps all rows deleted meanwhile
# Seconds of silence until a stream is given up: of a client with content that a view reads itself, of a client that
# reads no more of an export, or of Postgres in an export. With clients, REQUEST_LIMITS are stricter, where the lean
# protocol enforces them.
STREAM_PATIENCE_SECONDS = 30.0

# --- Postgres -------------------------------------------------------------------------------------

DATABASE = env.database_url("DATABASE_URL")
if not DEBUG:
    env.refuse_published(ALLOWED_HOSTS, SECRET_KEY=SECRET_KEY, DATABASE_URL=DATABASE["PASSWORD"])
    for fallback in SECRET_KEY_FALLBACKS:
        env.refuse_published(ALLOWED_HOSTS, SECRET_KEY_FALLBACKS=fallback)
# Whether a pooler such as PgBouncer, in any mode, stands between. Then nothing may outlive a transaction: no cursors
# on the server, and no prepared statements unless the pooler supports them ("prepared": PgBouncer 1.21 and newer).
# The role must have the settings of SESSION and REQUEST_SESSION (ops.E061, ops.W062).
DATABASE_POOLER = env.switch("DATABASE_POOLER", ["prepared"], default=False)
PREPARE = DATABASE_POOLER is not True
# How Postgres writes values and reads literals. A role or a database may have other defaults, which win where a
# pooler drops the session's options. The JSON would then have other texts in it, so no request gets such a session
# (ops/postgres/session.py).
SESSION_FORMAT = {
    "TimeZone": "UTC",
    "DateStyle": "ISO",
    "IntervalStyle": "postgres",
    "bytea_output": "hex",
    "extra_float_digits": 1,
    "standard_conforming_strings": "on",
    "client_encoding": "UTF8",
}
# Options of every session. The lock timeout, in milliseconds, holds for migrations, too: every request queues behind
# a migration that waits for a lock.
SESSION = SESSION_FORMAT | {"lock_timeout": 500}
# The pool of the sync ORM, for sync views, in each worker. Compiled statements use NATIVE_POOL.
SYNC_POOL = {
    "min_size": 0,  # many workers: an idle one holds no connection
    # workers x (3 + 3 to 7 of the native pool + 1 for imports + 1 for exports + 2 for statistics) must fit into
    # max_connections - 13: see docs/checks.md, ops.W060
    "max_size": 3,
    "timeout": 2.0,  # seconds, the same as connect_timeout: a first connection may take that long
    # The same as the native pool's: with 8, 27 of 384 requests of 64 clients that post were refused after 200 ms.
    "max_waiting": 64,
    "max_lifetime": 1800.0,  # seconds: a new replica or password takes effect within half an hour
    "reconnect_timeout": 3.0,  # seconds; psycopg's own 300 s would back off for minutes
}
DATABASES = {
    "default": {
        **DATABASE,
        "ENGINE": "ops.postgres.orm",  # Django's, with a pool that is timed and counted
        "CONN_MAX_AGE": 0,  # the pool keeps connections; under ASGI any other value leaks them
        "CONN_HEALTH_CHECKS": True,  # the pool then checks a connection before it lends it
        "DISABLE_SERVER_SIDE_CURSORS": bool(DATABASE_POOLER),
        "OPTIONS": {
            "application_name": NAME,  # as pg_stat_activity shows it
            "connect_timeout": 2,  # seconds; libpq's least
            # A dead peer is noticed after 5 + 3 x 2 = 11 s of silence, unacknowledged data after 5 s.
            # libpq ignores these four on a unix socket.
            "keepalives_idle": 5,
            "keepalives_interval": 2,
            "keepalives_count": 3,
            "tcp_user_timeout": 5000,  # milliseconds
            # psycopg's own default, which Django switches off. For compiled queries: the ORM binds its
            # parameters on the client and never prepares.
            "prepare_threshold": 5 if PREPARE else None,
            # Set as the session starts, so that no SET costs a round trip. PgBouncer refuses it.
            "options": "" if DATABASE_POOLER else startup_options(SESSION),
            "pool": SYNC_POOL,  # manage.py removes it
            **DATABASE["OPTIONS"],
        },
    }
}

# The pool for the compiled statements of requests, in each worker (ops/postgres/pool.py).
NATIVE_POOL = PoolOptions(
    prepare=PREPARE,
    # Connections are opened when they are first needed. A write has its connection to itself until it is committed:
    # with two connections for writes, POST reached 0.67 of raw, with four 0.84, with six 0.93 (2 workers,
    # docs/decisions/0008-native-pool.md). Each of many workers has fewer, since Postgres has 100 by default.
    max_size=max(3, min(7, 14 // WEB_CONCURRENCY)),
    # With 3, the first is for quick reads, the last for other reads, the second for either.
    readers=3 if PREPARE else 7,
    # A pooler that supports no prepared statements may also refuse more than one statement at once.
    depth=16 if PREPARE else 1,
    # The connections of 32 clients can all come to one worker: with 8, a sixth of their requests was refused (lab,
    # list100, 2 workers). 64 requests take some 25 ms to be served; more would only make all of them late.
    max_waiting=64,
    timeout=0.5,
    connect_timeout=2.0,
    # For a server that is gone or frozen: answers come within 1.5 s. Slow statements end by statement_timeout, 1 s.
    deadline=1.3,
    borrow=600.0,
    max_lifetime=1800.0,
    reconnect_timeout=3.0,  # psycopg_pool's own 300 s would back off for minutes
)

# Statistics are scans, which take seconds (ops/postgres/snapshot.py). A worker computes one answer at a time, on
# SNAPSHOT_CONNECTIONS of its own, and gives it up after STATISTICS_SECONDS.
SNAPSHOT_CONNECTIONS = 2
STATISTICS_SECONDS = 30.0

# More options of the sessions of workers, which config/asgi.py adds. Commands have no such limits: a migration or a
# backfill over 10 million rows takes the time it takes.
REQUEST_SESSION = {
    "statement_timeout": 1000,  # milliseconds
    # No limit with DEBUG: a debugger's prompt may be in a transaction.
    "idle_in_transaction_session_timeout": 0 if DEBUG else 5000,
    # For disks without a moving head. With Postgres's 4, a prepared query for a page of a category between two dates
    # read and sorted all 4,762 rows of the category (100,000 products). With 1.1 every page of every path reads its
    # index in order, at 10 thousand to 10 million rows, even by generic plans (tests/api/test_plans.py).
    "random_page_cost": 1.1,
}

# --- Redis ----------------------------------------------------------------------------------------

REDIS_URL = env.redis_url("REDIS_URL")
# Services that share a Redis need different prefixes: else an entry of one would be an answer of the other.
CACHE_PREFIX = env.word("CACHE_PREFIX", pattern=r"[\w-]{1,50}", what="letters, digits, - and _", default=NAME)
# Whole answers: in each worker and in Redis ("on"), in Redis only ("l2"), or nowhere ("off").
PAGE_CACHE = env.choice("PAGE_CACHE", ["on", "l2", "off"], default="off" if INSTRUMENTED else "on")

# Django's cache, for parts of answers and other data: cache.get(), cache.set(), cache.delete_pattern().
CACHES = {
    "default": {
        "BACKEND": "django_redis.cache.RedisCache",
        "KEY_PREFIX": f"{CACHE_PREFIX}:django",
        "LOCATION": [REDIS_URL],  # a list: a string would be split at a password's comma
        "OPTIONS": {
            "CONNECTION_POOL_KWARGS": {
                # Seconds. A cache that takes longer than the database is of no use.
                "socket_connect_timeout": 0.05,
                "socket_timeout": 0.05,
                "protocol": 2,  # Redis before 6.0 knows no other
                "retry": None,
                "max_connections": 16,  # as many as a worker has requests in flight
            },
            "IGNORE_EXCEPTIONS": True,  # the cache is optional: without it each read is a miss, not an error
            "SERIALIZER": "django_redis.serializers.json.JSONSerializer",  # unpickling runs code in the data
        },
    }
}

# --- Other services (docs/outgoing-calls.md) ------------------------------------------------------

# The exchange rates, as {"base": "USD", "date": "2026-11-27", "rates": {"EUR": 0.9245, ...}}. Without a source, each
# quote is answered 503.
RATES_URL = env.http_url("RATES_URL")
# Milliseconds for a call, retries included. A call to another continent, with TLS, may need 1000.
RATES_TIMEOUT = env.integer("RATES_TIMEOUT", least=10, most=10_000, default=200)
# The addresses of other services. Their queries, and the keys in these, are in no line of the log.
UPSTREAM_URLS: list[str] = [RATES_URL]

# --- Instruments ----------------------------------------------------------------------------------

# Where a request's time may go, in seconds: 10 ms in all. Timed in ops/asgi/telemetry.py.
LATENCY_BUDGET = Budget(middleware=0.001, auth=0.001, db=0.004, serialisation=0.002, response=0.002)

# Which answers carry Server-Timing, which tells how the service works inside: all, none, or those to requests that
# have the key in X-Server-Timing-Key.
SERVER_TIMING = env.choice("SERVER_TIMING", ["all", "none", "key"], default="all")
SERVER_TIMING_KEY = (
    env.secret("SERVER_TIMING_KEY", shortest=32, example='"$(openssl rand -hex 32)"')
    if SERVER_TIMING == "key"
    else ""
)

METRICS_PORT = env.integer("METRICS_PORT", least=0, most=65535, default=9100)  # 0: no metrics
METRICS_HOST = env.address("METRICS_HOST", default="127.0.0.1")

LOG_LEVEL = env.choice("LOG_LEVEL", ["debug", "info", "warning", "error", "critical"], default="info").upper()
LOG_FORMAT = env.choice("LOG_FORMAT", ["json", "console"], default="console" if DEBUG else "json")
ACCESS_LOG = env.fraction("ACCESS_LOG", default=0.0)  # the share of requests that get a line
# A function, so that a print of the settings shows no secret.
LOGGING = configuration(
    level=LOG_LEVEL,
    form=LOG_FORMAT,
    secrets=lambda: [
        *(SECRET_KEY, *SECRET_KEY_FALLBACKS, SERVER_TIMING_KEY),
        *(DATABASE["PASSWORD"], *passwords_of(REDIS_URL)),
        *(value for url in UPSTREAM_URLS for value in values_of(url)),
    ],
)

# --- Instruments of development (docs/profiling.md) -----------------------------------------------

if INSTRUMENTED:
    INSTALLED_APPS.append("django.contrib.staticfiles")
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
    SILK_RECORDS = r"/api/(?!docs|openapi\.json)"  # the paths of requests to record
    SILKY_MAX_RECORDED_REQUESTS = 1000
    SILKY_MAX_REQUEST_BODY_SIZE = SILKY_MAX_RESPONSE_BODY_SIZE = 64 * 1024  # a larger body is not kept
    # Silk masks headers with these names, besides Authorization and Cookie, and body fields with one in their name.
    SILKY_SENSITIVE_KEYS = {"x-api-key", "proxy-authorization", "key", "token", "secret", "password"}

if TOOLBAR:
    INSTALLED_APPS.append("debug_toolbar")
    MIDDLEWARE.append("debug_toolbar.middleware.DebugToolbarMiddleware")
    INTERNAL_IPS = ["127.0.0.1", "::1"]  # addresses that see it
    # The panels that are of use for an API and show nothing secret: headers hold keys, settings hold passwords.
    DEBUG_TOOLBAR_PANELS = [
        "debug_toolbar.panels.history.HistoryPanel",
        "debug_toolbar.panels.timer.TimerPanel",
        "debug_toolbar.panels.sql.SQLPanel",
        "debug_toolbar.panels.cache.CachePanel",
    ]
    DEBUG_TOOLBAR_CONFIG = {"UPDATE_ON_FETCH": True}  # an open page shows the request that it made last
