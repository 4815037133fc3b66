"""Contenders that write, and variants of them that keep a product in Redis for 200 ms.

The peers compare the API key with its digest in API_KEY_SHA256; the service looks the key up in its table.
"""

from dataclasses import replace

from ops.tools.lab.contender import ROOM, SUB10, Contender, gunicorn, uvicorn
from ops.tools.lab.contenders.cached import PREFIX

THREADS = ("--worker-class", "gthread", "--threads", "4")
LIFE = "cache-aside of a product in Redis for 200 ms"

RAW = Contender(
    name="raw",
    summary="one ASGI function, psycopg's pool, Pydantic, the service's statements: the limit",
    command=gunicorn("raw.writes:app", "--worker-class", "ops.gunicorn.worker.Worker"),
    packages=("uvicorn", "psycopg", "pydantic"),
)
LITESTAR = Contender(
    name="litestar-asyncpg",
    summary="Litestar, asyncpg, msgspec structs, uvicorn",
    command=uvicorn("litestar_writes.app:app"),
    packages=("litestar", "msgspec", "asyncpg"),
)
FASTAPI = Contender(
    name="fastapi-asyncpg",
    summary="FastAPI, asyncpg, Pydantic, uvicorn",
    command=uvicorn("fastapi_writes.app:app"),
    packages=("fastapi", "asyncpg"),
)
DRF = Contender(
    name="drf",
    summary="Django REST framework, ModelViewSet, persistent connections, gunicorn with threads",
    command=gunicorn("drf_writes.wsgi:application", *THREADS),
    environment={"DJANGO_SETTINGS_MODULE": f"{ROOM}.drf_writes.settings"},
    packages=("djangorestframework", "django"),
)
NINJA = Contender(
    name="ninja-sync",
    summary="stock Django Ninja, sync views, persistent connections, gunicorn with threads",
    command=gunicorn("ninja_sync_writes.wsgi:application", *THREADS),
    environment={"DJANGO_SETTINGS_MODULE": f"{ROOM}.ninja_sync_writes.settings"},
    packages=("django-ninja", "django"),
)
NINJA_ASYNC = Contender(
    name="ninja-async",
    summary="stock Django Ninja, async views, Django's pool, gunicorn with uvicorn workers",
    command=gunicorn("ninja_async_writes.asgi:application", "--worker-class", "uvicorn_worker.UvicornWorker"),
    packages=("django-ninja", "django"),
)
SUB10_CACHED = replace(
    SUB10,
    summary="the service with its page cache, as deployed: a write is told to all workers",
    environment={**SUB10.environment, "PAGE_CACHE": "on", "CACHE_PREFIX": "lab-{start}"},
)
WITH_CACHE = replace(SUB10_CACHED, name="sub10-cached")
WRITING = (RAW, SUB10, WITH_CACHE, LITESTAR, FASTAPI, DRF, NINJA, NINJA_ASYNC)


def _aside(contender: Contender, application: str, *packages: str) -> Contender:
    """Return the contender with cache-aside: `application` is the module of its `app`, or of Django's settings."""
    environment: dict[str, str] = {**contender.environment, **PREFIX}
    command = contender.command
    if "DJANGO_SETTINGS_MODULE" in environment:
        environment["DJANGO_SETTINGS_MODULE"] = f"{ROOM}.{application}"
    else:
        command = tuple(
            f"{ROOM}.{application}:app" if part.startswith(f"{ROOM}.") else part for part in command
        )
    return replace(
        contender,
        summary=f"{contender.summary}; {LIFE}",
        command=command,
        environment=environment,
        packages=(*contender.packages, *packages),
        redis=True,
    )


CRUD = (
    _aside(RAW, "raw.cached", "redis", "hiredis"),
    SUB10_CACHED,
    _aside(LITESTAR, "litestar_writes.cached", "redis", "hiredis"),
    _aside(FASTAPI, "fastapi_writes.cached", "redis", "hiredis"),
    _aside(DRF, "drf_writes.cached", "django-redis", "hiredis"),
    _aside(NINJA, "ninja_sync_writes.cached", "django-redis", "hiredis"),
)
BULK = (SUB10, DRF)
