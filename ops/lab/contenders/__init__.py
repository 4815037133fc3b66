"""Who is measured: a name, and the command that serves `/api/products` on a port with a number of workers.

All run on one interpreter and answer the same rows; none writes an access log, and none has a middleware. What
each does and why is in its own directory, which imports nothing of the service.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata

HERE = "ops.lab.contenders"


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """`command` and `environment` may have {python}, {port} and {workers}."""

    name: str
    summary: str
    command: tuple[str, ...]
    packages: tuple[str, ...]  # those whose versions identify it
    environment: Mapping[str, str] = field(default_factory=dict)
    at_root: bool = False  # it starts in the project's directory, where gunicorn.conf.py is

    @property
    def versions(self) -> str | None:
        """Names and versions of its packages, or None if one is not installed."""
        try:
            return ", ".join(f"{package} {metadata.version(package)}" for package in self.packages)
        except metadata.PackageNotFoundError:
            return None


def _gunicorn(application: str, *options: str) -> tuple[str, ...]:
    bind = ("--bind", "127.0.0.1:{port}", "--workers", "{workers}", "--no-control-socket")
    return ("{python}", "-m", "gunicorn", f"{HERE}.{application}", *bind, *options)


def _uvicorn(application: str) -> tuple[str, ...]:
    bind = ("--host", "127.0.0.1", "--port", "{port}", "--workers", "{workers}")
    options = ("--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning")
    return ("{python}", "-m", "uvicorn", f"{HERE}.{application}", *bind, *options)


CONTENDERS = [
    Contender(
        name="raw",
        summary="one ASGI function, psycopg's pool, JSON by Postgres: the limit",
        command=_gunicorn("raw.app:app", "--worker-class", "ops.asgi.worker.Worker"),
        packages=("uvicorn", "psycopg"),
    ),
    Contender(
        name="sub10",
        summary="the service itself",
        command=("{python}", "-m", "gunicorn", "--bind", "127.0.0.1:{port}"),
        environment={
            "WEB_CONCURRENCY": "{workers}",
            "PORT": "{port}",
            "SECRET_KEY": "a key that signs the cursors of measurements only",
            "ALLOWED_HOSTS": "127.0.0.1",
            "LOG_LEVEL": "warning",
            "DEBUG": "",
        },
        packages=("django", "uvicorn", "psycopg"),
        at_root=True,
    ),
    Contender(
        name="ninja-async",
        summary="stock Django Ninja, async views, Django's pool, gunicorn with uvicorn workers",
        command=_gunicorn("ninja_async.asgi:application", "--worker-class", "uvicorn_worker.UvicornWorker"),
        packages=("django-ninja", "django"),
    ),
    Contender(
        name="ninja-sync",
        summary="stock Django Ninja, sync views, persistent connections, gunicorn with threads",
        command=_gunicorn("ninja_sync.wsgi:application", "--worker-class", "gthread", "--threads", "4"),
        packages=("django-ninja", "django"),
    ),
    Contender(
        name="drf",
        summary="Django REST framework, ModelViewSet, persistent connections, gunicorn with threads",
        command=_gunicorn("drf.wsgi:application", "--worker-class", "gthread", "--threads", "4"),
        packages=("djangorestframework", "django"),
    ),
    Contender(
        name="fastapi-sqlalchemy",
        summary="FastAPI, SQLAlchemy's async ORM on asyncpg, response model, uvicorn",
        command=_uvicorn("fastapi_sqlalchemy.app:app"),
        packages=("fastapi", "sqlalchemy", "asyncpg"),
    ),
    Contender(
        name="fastapi-asyncpg",
        summary="FastAPI, asyncpg, response model, uvicorn",
        command=_uvicorn("fastapi_asyncpg.app:app"),
        packages=("fastapi", "asyncpg"),
    ),
    Contender(
        name="litestar-asyncpg",
        summary="Litestar, asyncpg, msgspec structs, uvicorn",
        command=_uvicorn("litestar_asyncpg.app:app"),
        packages=("litestar", "msgspec", "asyncpg"),
    ),
    Contender(
        name="django-bolt",
        summary="django-bolt, the ORM on its thread pool, msgspec structs, its own server in Rust",
        command=(
            *("{python}", "-m", "django", "runbolt", "--host", "127.0.0.1", "--port", "{port}"),
            *("--processes", "{workers}", "--no-admin"),
        ),
        environment={"DJANGO_SETTINGS_MODULE": f"{HERE}.django_bolt.settings"},
        packages=("django-bolt", "django"),
    ),
]
