"""Contenders that ask Postgres for each answer."""

from dataclasses import replace

from ops.lab.contender import ROOM, Contender, gunicorn, uvicorn

SUB10 = Contender(
    name="sub10",
    summary="the service itself, without its page cache",
    command=("{python}", "-m", "gunicorn", "--bind", "127.0.0.1:{port}"),
    environment={
        "WEB_CONCURRENCY": "{workers}",
        "PORT": "{port}",
        "SECRET_KEY": "a key that signs the cursors of measurements only",
        "ALLOWED_HOSTS": "127.0.0.1",
        "LOG_LEVEL": "warning",
        "DEBUG": "",
        "PAGE_CACHE": "off",
    },
    packages=("django", "uvicorn", "psycopg"),
    at_root=True,
    redis=True,
)

UNTIMED = replace(
    SUB10,
    name="sub10-untimed",
    summary="the same without telemetry: no headers, logs and metrics of requests",
    command=(*SUB10.command, "ops.lab.untimed:application"),
    environment={**SUB10.environment, "METRICS_PORT": "0"},
)

SCRAPED = replace(
    SUB10,
    name="sub10-scraped",
    summary="the same while its metrics are scraped every 100 ms",
    command=("{python}", "-m", "ops.lab.scraped", *SUB10.command[3:]),
)

UNCACHED = (
    Contender(
        name="raw",
        summary="one ASGI function, psycopg's pool, JSON by Postgres: the limit",
        command=gunicorn("raw.app:app", "--worker-class", "ops.asgi.worker.Worker"),
        packages=("uvicorn", "psycopg"),
    ),
    SUB10,
    UNTIMED,
    SCRAPED,
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
