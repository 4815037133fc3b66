"""Contenders that keep their answers. None finds data of an earlier start in Redis: each start has another prefix."""

from dataclasses import replace

from ops.tools.lab.contender import ROOM, SUB10, Contender, gunicorn, uvicorn

PREFIX = {"CACHE_PREFIX": "lab:{start}:"}


def _sub10(name: str, summary: str, page_cache: str, *options: str) -> Contender:
    return replace(
        SUB10,
        name=name,
        summary=summary,
        command=(*SUB10.command, *options),
        environment={**SUB10.environment, "PAGE_CACHE": page_cache, "CACHE_PREFIX": "lab-{start}"},
    )


def _untimed(name: str, summary: str, *options: str) -> Contender:
    timed = _sub10(name, summary, "on", *options, "ops.tools.lab.untimed:application")
    return replace(timed, environment={**timed.environment, "METRICS_PORT": "0"})


def _drf(name: str, summary: str, settings: str, *packages: str) -> Contender:
    return Contender(
        name=name,
        summary=summary,
        command=gunicorn("drf_cache.wsgi:application", "--worker-class", "gthread", "--threads", "4"),
        environment={**PREFIX, "DJANGO_SETTINGS_MODULE": f"{ROOM}.drf_cache.{settings}"},
        packages=("djangorestframework", "django", *packages),
        redis="django-redis" in packages,
    )


CACHED = (
    Contender(
        name="raw-constant",
        summary="one ASGI function that sends a constant: the limit of ASGI",
        command=gunicorn("raw.constant:app", "--worker-class", "ops.gunicorn.worker.Worker"),
        packages=("uvicorn",),
    ),
    _sub10("sub10", "the service itself, hits answered in the HTTP protocol class", "on"),
    _sub10(
        "sub10-l1",
        "the same without that: hits from the worker's memory, in ASGI",
        "on",
        *("--worker-class", "ops.tools.lab.worker.Worker"),
    ),
    _untimed("sub10-untimed", "sub10 without telemetry: no headers, logs and metrics of requests"),
    _untimed("sub10-l1-untimed", "sub10-l1 without it", *("--worker-class", "ops.tools.lab.worker.Worker")),
    _sub10("sub10-l2", "the same without the worker's memory: hits from Redis", "l2"),
    Contender(
        name="nginx-file",
        summary="nginx and a static file: the limit of a server in C",
        command=("{python}", "-m", f"{ROOM}.raw.nginx", "{port}", "{workers}"),
        program="nginx",
    ),
    Contender(
        name="raw-redis",
        summary="one ASGI function, one GET: the limit of a cache in Redis",
        command=gunicorn("raw.redis:app", "--worker-class", "ops.gunicorn.worker.Worker"),
        environment=PREFIX,
        packages=("uvicorn", "redis", "hiredis"),
        redis=True,
    ),
    _drf("drf-cache", "drf with Django's cache_page, on django-redis", "redis", "django-redis", "hiredis"),
    _drf("drf-locmem", "the same on Django's cache in a process's memory", "locmem"),
    Contender(
        name="fastapi-cache",
        summary="fastapi-asyncpg with the cache of fastapi-redis-sdk",
        command=uvicorn("fastapi_cache.app:app"),
        environment={"REDIS_PREFIX": "lab:{start}"},
        packages=("fastapi", "fastapi-redis-sdk", "redis"),
        redis=True,
    ),
    Contender(
        name="litestar-cache",
        summary="litestar-asyncpg with Litestar's response cache, on its RedisStore",
        command=uvicorn("litestar_cache.app:app"),
        environment=PREFIX,
        packages=("litestar", "redis", "hiredis"),
        redis=True,
    ),
)
