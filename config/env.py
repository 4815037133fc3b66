"""Typed readers of environment variables that refuse what they cannot vouch for.

Each reader returns a value of its type, or stops the process with one line that names the variable, what is
wrong with it and an example. An empty variable counts as missing. What can hold a secret is never quoted.
"""

import os
import re
from collections.abc import Callable, Collection
from functools import partial
from importlib.util import find_spec
from typing import Any, TypeVar
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

T = TypeVar("T")

TRUE, FALSE = {"1", "true", "yes", "on"}, {"0", "false", "no", "off"}
HOST_NAME = r"[A-Za-z0-9_.-]+|[0-9A-Fa-f:.]+"  # a name, an IPv4 or (without brackets) an IPv6 address
# What nobody outside reaches the service by: a name of one label, which no public DNS holds, or a loopback address.
LOCAL_HOST = re.compile(r"[A-Za-z0-9_-]+|127\.[0-9.]+|\[::1\]")
PUBLISHED = "development-only"  # how each secret begins that this repository holds (compose.yaml)
ALLOWED_HOST = re.compile(r"\*|\.?[A-Za-z0-9_-][A-Za-z0-9_.-]*|\[[0-9A-Fa-f:.]+\]")

# What a URL's query may say: libpq's own keywords for how to reach and trust the server
# (postgresql.org/docs/current/libpq-connect.html). `options` is absent: settings.py composes it.
LIBPQ_PARAMETERS = {
    "sslmode": r"disable|allow|prefer|require|verify-ca|verify-full",
    "connect_timeout": r"\d+",
    "tcp_user_timeout": r"\d+",
    "keepalives": r"[01]",
    "keepalives_idle": r"\d+",
    "keepalives_interval": r"\d+",
    "keepalives_count": r"\d+",
    "channel_binding": r"disable|prefer|require",
    "gssencmode": r"disable|prefer|require",
    "sslnegotiation": r"postgres|direct",
    "target_session_attrs": r"any|read-write|read-only|primary|standby|prefer-standby",
    **dict.fromkeys(["application_name", "passfile", "require_auth"], r".+"),
    **dict.fromkeys(["sslcert", "sslkey", "sslrootcert", "sslcrl", "ssl_min_protocol_version"], r".+"),
}
# And redis-py's, the same way. It would fail on those of TLS without TLS, at the first command only.
REDIS_PARAMETERS = {"db": r"\d+", "username": r".+", "password": r".+"}
REDIS_TLS_PARAMETERS = {
    "ssl_cert_reqs": r"none|optional|required",
    **dict.fromkeys(["ssl_ca_certs", "ssl_certfile", "ssl_keyfile"], r".+"),
}


class ConfigurationError(SystemExit):
    """A variable is missing or bad.

    A SystemExit, because Python then prints its text as one line to stderr and exits with status 1. Of any
    other exception manage.py, gunicorn and pytest would print a traceback.
    """


class BadValueError(Exception):
    """What is wrong with a value, in words that follow the variable's name. Never holds a secret."""


def secret(name: str, *, shortest: int, example: str, default: str | None = None) -> str:
    """Read a text of at least `shortest` characters that no message repeats."""

    def parse(value: str) -> str:
        if len(value) < shortest:
            raise BadValueError(f"has {len(value)} characters, fewer than {shortest}")
        return value

    return _read(name, parse, example, default)


def boolean(name: str, *, default: bool) -> bool:
    """Read 1, true, yes, on or 0, false, no, off, in any case."""

    def parse(value: str) -> bool:
        if value.lower() not in TRUE | FALSE:
            raise BadValueError(f"is {value!r}, neither true nor false")
        return value.lower() in TRUE

    return _read(name, parse, "true", default)


def integer(name: str, *, least: int, most: int, default: int) -> int:
    """Read a whole number from `least` to `most`."""

    def parse(value: str) -> int:
        # ASCII digits only: int() also takes "1_000", " 1" and digits of other scripts.
        if not re.fullmatch(r"-?[0-9]{1,18}", value) or not least <= int(value) <= most:
            raise BadValueError(f"is {value!r}, not a whole number from {least} to {most}")
        return int(value)

    return _read(name, parse, str(default), default)


def fraction(name: str, *, default: float) -> float:
    """Read a decimal number from 0 to 1."""

    def parse(value: str) -> float:
        if not re.fullmatch(r"0|1|[01]?\.[0-9]{1,9}", value) or float(value) > 1:
            raise BadValueError(f"is {value!r}, not a number from 0 to 1")
        return float(value)

    return _read(name, parse, "0.01", default)


def word(name: str, *, pattern: str, what: str, default: str) -> str:
    """Read a text that matches; `what` says what it then is."""

    def parse(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise BadValueError(f"is {value!r}, which is not {what}")
        return value

    return _read(name, parse, default, default)


def choice(name: str, choices: Collection[str], *, default: str) -> str:
    """Read one of `choices`, in any case."""
    return _read(name, partial(_choose, choices=choices), default, default)


def is_installed(name: str) -> bool:
    """Tell whether a package of an optional dependency group is here, without importing it."""
    return find_spec(name) is not None


def package(name: str, choices: Collection[str], *, lock: str) -> str:
    """Read the name of an optional package, which `lock` installs, or "" for none."""

    def parse(value: str) -> str:
        chosen = _choose(value, choices)
        if not is_installed(chosen):
            raise ConfigurationError(f"{name} is {value!r}, which is not installed: pip install -r {lock}")
        return chosen

    return _read(name, parse, next(iter(choices)), "")


def hosts(name: str, *, default: list[str] | None = None) -> list[str]:
    """Read host names between commas, without scheme or port; `.name` means any subdomain, `*` anything."""

    def parse(value: str) -> list[str]:
        found = [host.strip() for host in value.split(",")]
        for host in found:
            if not ALLOWED_HOST.fullmatch(host):
                raise BadValueError(f"has {host!r}, which is not a host name (no scheme, port or path)")
        return found

    return _read(name, parse, "api.example.com,.example.org", default)


def database_url(name: str) -> dict[str, Any]:
    """Read a Postgres URL into an entry of Django's DATABASES; `?host=/directory` names a unix socket.

    Percent-encoded parts are decoded. OPTIONS has the query's other parameters, if libpq knows them.
    """

    def parse(value: str) -> dict[str, Any]:
        url = _split(value, ["postgresql", "postgres"])
        query = _query(url, {"host": rf"/.*|{HOST_NAME}", "port": r"\d+", **LIBPQ_PARAMETERS})
        host = query.pop("host", url.hostname)
        database = _decode(url.path.removeprefix("/"))
        if not host:
            raise BadValueError("names no host")
        if not database or "/" in url.path[1:]:
            raise BadValueError("names no database")
        return {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": database,
            "USER": _decode(url.username or ""),
            "PASSWORD": _decode(url.password or ""),
            "HOST": host,
            "PORT": query.pop("port", str(url.port or "")),
            "OPTIONS": query,
        }

    return _read(name, parse, "postgresql://user:password@localhost:5432/sub10", None)


def redis_url(name: str) -> str:
    """Read a URL that redis-py takes: redis://, rediss:// (TLS) or unix:///path/of/socket."""

    def parse(value: str) -> str:
        url = _split(value, ["redis", "rediss", "unix"])
        _query(url, REDIS_PARAMETERS | (REDIS_TLS_PARAMETERS if url.scheme == "rediss" else {}))
        _decode(url.password or "")
        if url.scheme == "unix" and not url.path.strip("/"):
            raise BadValueError("names no socket")
        if url.scheme != "unix" and not url.hostname:
            raise BadValueError("names no host")
        if url.scheme != "unix" and not re.fullmatch(r"(/\d*)?", url.path):
            raise BadValueError("has a path that is not the number of a database")
        return value

    return _read(name, parse, "redis://localhost:6379/0", None)


def refuse_published(hosts: Collection[str], **secrets: str) -> None:
    """Stop if one of `secrets`, by variable, is one of this repository's and `hosts` are not only this machine."""
    reachable = [host for host in hosts if not LOCAL_HOST.fullmatch(host)]
    for name, value in secrets.items():
        if reachable and value.startswith(PUBLISHED):
            raise ConfigurationError(
                f"{name} has a secret that everybody can read in this repository, and ALLOWED_HOSTS has "
                f"{reachable[0]!r}: set one of your own, which `openssl rand -hex 32` makes"
            )


def _read(name: str, parse: Callable[[str], T], example: str, default: T | None) -> T:
    value = os.environ.get(name, "").strip()
    problem = "is missing"
    if value:
        try:
            return parse(value)
        except BadValueError as error:
            problem = str(error)
    elif default is not None:
        return default
    raise ConfigurationError(f"{name} {problem}. Example: {name}={example}")


def _choose(value: str, choices: Collection[str]) -> str:
    if value.lower() not in choices:
        raise BadValueError(f"is {value!r}, not one of {', '.join(choices)}")
    return value.lower()


def _split(value: str, schemes: Collection[str]) -> SplitResult:
    """Take a URL apart. Urllib's own errors quote the value, so they are replaced."""
    try:
        url = urlsplit(value)
        _ = url.port
    except ValueError:
        raise BadValueError("is not a URL (percent-encode special characters in a password)") from None
    if url.scheme not in schemes:
        raise BadValueError(f"begins with none of {', '.join(f'{scheme}://' for scheme in schemes)}")
    if url.fragment or re.search(r"\s", value):
        raise BadValueError("has a '#' or a blank that is not percent-encoded")
    if url.hostname and not re.fullmatch(HOST_NAME, url.hostname):
        raise BadValueError("has a host that is neither a name nor an address")
    return url


def _query(url: SplitResult, known: dict[str, str]) -> dict[str, str]:
    """Return the query's parameters; each must be known, said once, and match its pattern."""
    pairs = parse_qsl(url.query, keep_blank_values=True)
    found = dict(pairs)
    if len(found) < len(pairs):
        raise BadValueError("has a parameter twice")
    for key, value in pairs:
        if key not in known:
            raise BadValueError("has a parameter that is not one of " + ", ".join(sorted(known)))
        if not re.fullmatch(known[key], value):
            raise BadValueError(f"has a bad value for the parameter {key}")
    return found


def _decode(part: str) -> str:
    try:
        decoded = unquote(part, errors="strict")
    except UnicodeDecodeError:
        decoded = "\0"
    if "\0" in decoded or re.search(r"%(?![0-9A-Fa-f]{2})", part):
        raise BadValueError("has a '%' that begins no percent-encoded character")
    return decoded
