"""Contenders that ask Postgres for each answer."""

from ops.tools.lab.contender import ROOM, SCRAPED, STOCK, SUB10, UNTIMED, Contender, gunicorn, uvicorn

UNCACHED = (
    Contender(
        name="raw",
        summary="one ASGI function, psycopg's pool, JSON by Postgres: the limit",
        command=gunicorn("raw.app:app", "--worker-class", "ops.gunicorn.worker.Worker"),
        packages=("uvicorn", "psycopg"),
    ),
    Contender(
        name="raw-pipelined",
        summary="the same on one connection in pipeline mode, 16 statements under way",
        command=gunicorn("raw.pipelined:app", "--worker-class", "ops.gunicorn.worker.Worker"),
        packages=("uvicorn", "psycopg"),
    ),
    SUB10,
    UNTIMED,
    SCRAPED,
    STOCK,
    Contender(
        name="ninja-async",
        summary="stock Django Ninja, async views, Django's pool, gunicorn with uvicorn workers",
        command=gunicorn("ninja_async.asgi:application", "--worker-class", "uvicorn_worker.UvicornWorker"),
        packages=("django-ninja", "django"),
    ),
    Contender(
        name="ninja-sync",
        summary="stock Django Ninja, sync views, persistent connections, gunicorn with threads",
        command=gunicorn("ninja_sync.wsgi:application", "--worker-class", "gthread", "--threads", "4"),
        packages=("django-ninja", "django"),
    ),
    Contender(
        name="drf",
        summary="Django REST framework, ModelViewSet, persistent connections, gunicorn with threads",
        command=gunicorn("drf.wsgi:application", "--worker-class", "gthread", "--threads", "4"),
        packages=("djangorestframework", "django"),
    ),
    Contender(
        name="fastapi-sqlalchemy",
        summary="FastAPI, SQLAlchemy's async ORM on asyncpg, response model, uvicorn",
        command=uvicorn("fastapi_sqlalchemy.app:app"),
        packages=("fastapi", "sqlalchemy", "asyncpg"),
    ),
    Contender(
        name="fastapi-asyncpg",
        summary="FastAPI, asyncpg, response model, uvicorn",
        command=uvicorn("fastapi_asyncpg.app:app"),
        packages=("fastapi", "asyncpg"),
    ),
    Contender(
        name="litestar-asyncpg",
        summary="Litestar, asyncpg, msgspec structs, uvicorn",
        command=uvicorn("litestar_asyncpg.app:app"),
        packages=("litestar", "msgspec", "asyncpg"),
    ),
    Contender(
        name="django-bolt",
        summary="django-bolt, the ORM on its thread pool, msgspec structs, its own server in Rust",
        command=(
            *("{python}", "-m", "django", "runbolt", "--host", "127.0.0.1", "--port", "{port}"),
            *("--processes", "{workers}", "--no-admin"),
        ),
        environment={"DJANGO_SETTINGS_MODULE": f"{ROOM}.django_bolt.settings"},
        packages=("django-bolt", "django"),
    ),
)

# The contenders that also answer a row with its related rows.
NESTING = tuple(
    each
    for each in UNCACHED
    if each.name in ("raw", "sub10", "sub10-stock", "ninja-async", "ninja-sync", "fastapi-sqlalchemy")
)
