"""Typed readers of environment variables that refuse invalid values.

Each reader returns a value of its type, or stops the process with one line that names the variable, the error and an
example. An empty variable counts as missing. A value that may hold a secret is never quoted. It can also be in a
file, as Docker and Kubernetes mount secrets; the variable NAME_FILE then names the file.
"""

import os
import re
import sys
from collections.abc import Callable, Collection, Sequence
from functools import partial
from importlib.util import find_spec
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_network
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import parse_qsl, unquote

from ops.redis.rates import RateLimit

T = TypeVar("T")

TRUE, FALSE = {"1", "true", "yes", "on"}, {"0", "false", "no", "off"}
HOST_NAME = r"[A-Za-z0-9_.-]+|[0-9A-Fa-f:.]+"  # a name, an IPv4 or (without brackets) an IPv6 address
# Hosts that are not reachable from outside: a name of one label, which no public DNS holds, or a loopback address.
LOCAL_HOST = re.compile(r"[A-Za-z0-9_-]+|127\.[0-9.]+|\[::1\]")
ORIGIN = re.compile(
    r"(?!http://.*:80\Z|https://.*:443\Z)[a-z][a-z0-9+.-]*://([a-z0-9_.-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?"
)
PUBLISHED = "development-only"  # each secret in this repository begins so (compose.yaml)
# Kubernetes sets such a value as NAME_PORT for each service NAME of the namespace, unless the deployment sets
# the variable itself.
SERVICE_LINK = re.compile(r"(tcp|udp|sctp)://\S+")
# An entry of ALLOWED_HOSTS that a Host header can match. Django refuses headers with an underscore, and removes a dot
# at the end from the header, not from the entry.
LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
ALLOWED_HOST = re.compile(rf"\*|(?=.{{1,254}}\Z)\.?{LABEL}(?:\.{LABEL})*")
GREATEST_PORT = 65535
MAX_SECRET_BYTES = 64 * 1024  # of a file that holds a secret
# RFC 3986, appendix B: scheme, user, hosts with ports, path, query and fragment. The user ends at the last "@".
URL = re.compile(r"([a-z]+)://(?:([^/?#\[\]]*)@)?([^/?#@]*)(/[^?#]*)?(?:\?([^#]*))?(?:#(.*))?")
URL_HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9_.%-]*))(?::([0-9]*))?")

# The keys that a URL's query may have: libpq's own keywords for how to reach and trust the server
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
    "load_balance_hosts": r"disable|random",
    "ssl_min_protocol_version": r"TLSv1(\.[1-3])?",
    **dict.fromkeys(["application_name", "passfile", "require_auth"], r".+"),
    **dict.fromkeys(["sslcert", "sslkey", "sslrootcert", "sslcrl"], r".+"),
}
# The same for redis-py. Without TLS, it would fail on the parameters of TLS, and only at the first command.
REDIS_PARAMETERS = {"db": r"\d+", "username": r".+", "password": r".+"}
REDIS_TLS_PARAMETERS = {
    "ssl_cert_reqs": r"none|optional|required",
    **dict.fromkeys(["ssl_ca_certs", "ssl_certfile", "ssl_keyfile"], r".+"),
}
# Parameters that name a file. Without a check, a missing file would be noticed only at the first connection, and
# redis-py would not name it.
FILES = {"sslcert", "sslkey", "sslrootcert", "sslcrl", "ssl_ca_certs", "ssl_certfile", "ssl_keyfile"}


class ConfigurationError(SystemExit):
    """A variable is missing or bad.

    It is a SystemExit, because Python then prints its text as one line to stderr and exits with status 1. For any
    other exception, manage.py, gunicorn and pytest would print a traceback.
    """


class BadValueError(Exception):
    """A value is bad. The text follows the variable's name in the message, and never holds a secret."""


def secret(name: str, *, shortest: int, example: str, default: str | None = None) -> str:
    """Read a text of at least `shortest` characters that no message repeats."""

    def parse(value: str) -> str:
        if len(value) < shortest:
            raise BadValueError(f"has {len(value)} characters, fewer than {shortest}")
        return value

    return _read_secret(name, parse, example, default)


def secrets(name: str, *, shortest: int, example: str) -> list[str]:
    """Read secrets between commas. A missing variable is an empty list."""

    def parse(value: str) -> list[str]:
        found = [each.strip() for each in value.split(",")]
        if short := [each for each in found if len(each) < shortest]:
            raise BadValueError(f"has a secret of {len(short[0])} characters, fewer than {shortest}")
        return found

    return _read_secret(name, parse, example, [])


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


def word(name: str, *, pattern: str, what: str, default: str, example: str = "") -> str:
    """Read a text that matches `pattern`; `what` describes it in the error."""

    def parse(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise BadValueError(f"is {value!r}, which is not {what}")
        return value

    return _read(name, parse, example or default, default)


def choice(name: str, choices: Collection[str], *, default: str) -> str:
    """Read one of `choices`, in any case."""
    return _read(name, partial(_choose, choices=choices), default, default)


def rate(name: str, *, default: str) -> RateLimit | None:
    """Read a rate, such as `100/s`, `600/m` or `5000/h`. None stands for `off`."""

    def parse(value: str) -> RateLimit | bool:
        if value.lower() == "off":
            return False  # a default of None would make the variable required
        found = re.fullmatch(r"([1-9][0-9]{0,8})/([smh])", value)
        if not found:
            raise BadValueError(
                f"is {value!r}, neither a number a second (s), minute (m) or hour (h) nor off"
            )
        return RateLimit(int(found[1]), {"s": 1, "m": 60, "h": 3600}[found[2]])

    limit = _read(name, parse, "100/s", parse(default))
    return limit if isinstance(limit, RateLimit) else None


def switch(name: str, further: Sequence[str], *, default: bool) -> bool | str:
    """Read a boolean, or one of `further` words."""
    value = os.environ.get(name, "").strip().lower()
    if value in ("", *TRUE, *FALSE):
        return boolean(name, default=default)
    return choice(name, ["false", "true", *further], default=further[0])


def is_installed(name: str) -> bool:
    """Tell whether a package of an optional dependency group is installed, without importing it."""
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
    """Read host names between commas, without scheme or port. `.name` includes the subdomains, `*` is any host."""

    def parse(value: str) -> list[str]:
        found = [host.strip() for host in value.split(",")]
        for host in found:
            if not (ALLOWED_HOST.fullmatch(host) or _is_ipv6(host)):
                raise BadValueError(
                    f"has {host!r}, which no Host header could match: a name has letters, digits and hyphens between "
                    "dots, `.name` is for any subdomain, an IPv6 address is in brackets; no scheme, port or path"
                )
        return found

    return _read(name, parse, "api.example.com,.example.org", default)


def origins(name: str) -> list[str]:
    """Read origins of web pages between commas, `https://app.example.com:8443`, or `*` for any."""

    def parse(value: str) -> list[str]:
        found = [origin.strip() for origin in value.split(",")]
        for origin in found:
            if origin != "*" and not ORIGIN.fullmatch(origin):
                raise BadValueError(
                    f"has {origin!r}, which is not an origin (scheme://host, in lower case, no path, no default port)"
                )
        return found

    return _read(name, parse, "https://app.example.com", [])


def networks(name: str) -> list[IPv4Network | IPv6Network]:
    """Read addresses and networks between commas: `10.0.0.0/8,::1`."""

    def parse(value: str) -> list[IPv4Network | IPv6Network]:
        try:
            return [ip_network(each.strip()) for each in value.split(",")]
        except ValueError:
            raise BadValueError(f"is {value!r}, which is not a list of addresses and networks") from None

    return _read(name, parse, "10.0.0.0/8,127.0.0.1", [])


def address(name: str, *, default: str) -> str:
    """Read a host name or an address to listen on; an IPv6 address with or without its brackets."""

    def parse(value: str) -> str:
        bare = value[1:-1] if _is_ipv6(value) else value
        if not re.fullmatch(HOST_NAME, bare):
            raise BadValueError(f"is {value!r}, which is neither a name nor an address")
        return bare

    return _read(name, parse, default, default)


def database_url(name: str) -> dict[str, Any]:
    """Read a Postgres URL into an entry of Django's DATABASES.

    As in libpq, there may be several hosts between commas, each with a port or without. They may also be in `?host=`,
    where a `/directory` means the unix socket in it. Other parameters of the query go into OPTIONS; they must be
    LIBPQ_PARAMETERS.
    """

    def parse(value: str) -> dict[str, Any]:
        url = _split(value, ["postgresql", "postgres"])
        query = _query(url.query, {"host": r".+", "port": r".*", **LIBPQ_PARAMETERS})
        hosts = query.pop("host", url.hosts).split(",")
        ports = query.pop("port", url.ports).split(",")
        database = _decode(url.path.removeprefix("/"))
        if not all(hosts):
            raise BadValueError("names no host")
        if not all(re.fullmatch(rf"/.*|{HOST_NAME}", host) for host in hosts):
            raise BadValueError("has a host that is neither a name nor an address")
        if not all(port == "" or _is_port(port) for port in ports) or len(ports) not in (1, len(hosts)):
            raise BadValueError(
                f"has a bad port: one from 1 to {GREATEST_PORT} for all hosts, or one for each"
            )
        if not database or "/" in url.path[1:]:
            raise BadValueError("names no database")
        return {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": database,
            "USER": _decode(url.user),
            "PASSWORD": _decode(url.password),
            "HOST": ",".join(hosts),
            "PORT": ",".join(ports) if any(ports) else "",
            "OPTIONS": query,
        }

    return _read_secret(name, parse, "postgresql://user:password@localhost:5432/name", None)


def redis_url(name: str) -> str:
    """Read a URL that redis-py takes: redis://, rediss:// (TLS) or unix:///path/of/socket."""

    def parse(value: str) -> str:
        url = _split(value, ["redis", "rediss", "unix"])
        _query(url.query, REDIS_PARAMETERS | (REDIS_TLS_PARAMETERS if url.scheme == "rediss" else {}))
        _decode(url.user)
        _decode(url.password)
        if url.scheme == "unix":
            if url.hosts or not url.path.strip("/"):
                raise BadValueError("names no socket, as in unix:///run/redis.sock")
            return value
        if not url.hosts:
            raise BadValueError("names no host")
        if not re.fullmatch(HOST_NAME, url.hosts):
            raise BadValueError("has a host that is neither a name nor an address, or more than one")
        if url.ports and not _is_port(url.ports):
            raise BadValueError(f"has a port that is not from 1 to {GREATEST_PORT}")
        if not re.fullmatch(r"(/[0-9]*)?", url.path):
            raise BadValueError("has a path that is not the number of a database")
        return value

    return _read_secret(name, parse, "redis://localhost:6379/0", None)


def http_url(name: str) -> str:
    """Read the address of a service that this one calls: http:// or https://, without a user; or "" for none.

    The query may hold a key, so no error repeats the address.
    """

    def parse(value: str) -> str:
        url = _split(value, ["https", "http"])
        if url.user:
            raise BadValueError("names a user, whom no call would name")
        if not re.fullmatch(HOST_NAME, url.hosts):
            raise BadValueError("has a host that is neither a name nor an address, or more than one")
        if url.ports and not _is_port(url.ports):
            raise BadValueError(f"has a port that is not from 1 to {GREATEST_PORT}")
        if not re.fullmatch(r"[!-~]+", value):
            raise BadValueError("has characters that are not percent-encoded")
        return value

    return _read_secret(name, parse, "https://rates.example.com/latest", "")


def refuse_published(hosts: Collection[str], **secrets: str) -> None:
    """Stop if one of `secrets`, by variable, is this repository's, and one of `hosts` is reachable from outside."""
    reachable = [host for host in hosts if not LOCAL_HOST.fullmatch(host)]
    for name, value in secrets.items():
        if reachable and value.startswith(PUBLISHED):
            raise ConfigurationError(
                f"{name} has a secret that everybody can read in this repository, and ALLOWED_HOSTS has "
                f"{reachable[0]!r}: set one of your own, which `openssl rand -hex 32` makes"
            )


class Url(NamedTuple):
    scheme: str
    user: str  # percent-encoded, as are the password and the path
    password: str
    hosts: str  # decoded, between commas, without the brackets of IPv6 addresses
    ports: str  # between commas, one for each host; each may be empty
    path: str
    query: str


def _read_secret(name: str, parse: Callable[[str], T], example: str, default: T | None) -> T:
    """Read a variable, or the file that NAME_FILE names."""
    file = os.environ.get(f"{name}_FILE", "").strip()
    if not file:
        return _read(name, parse, example, default)
    if os.environ.get(name, "").strip():
        raise ConfigurationError(f"{name} and {name}_FILE are both set: unset one of them")
    try:
        return parse(_sound(_content(file)))
    except BadValueError as error:
        # The message does not name the file: by mistake, the name may be the secret itself.
        raise ConfigurationError(f"{name} {error}. It is read from the file that {name}_FILE names") from None


def _content(file: str) -> str:
    """Return the text of a file, without the line break at its end."""
    if not Path(file).is_file():  # a pipe, too, which may have no end
        raise BadValueError("cannot be read: there is no such file")
    try:
        with Path(file).open("rb") as opened:
            content = opened.read(MAX_SECRET_BYTES + 1)
    except OSError as error:
        raise BadValueError(f"cannot be read: {error.strerror}") from None
    if len(content) > MAX_SECRET_BYTES:
        raise BadValueError(f"cannot be read: the file has more than {MAX_SECRET_BYTES} bytes")
    try:
        text = content.decode().strip()
    except UnicodeDecodeError:
        raise BadValueError("is not UTF-8") from None
    if not text:
        raise BadValueError("is missing: the file is empty")
    return text


def _read(name: str, parse: Callable[[str], T], example: str, default: T | None) -> T:
    value = os.environ.get(name, "").strip()
    problem = "is missing"
    if name.endswith("PORT") and SERVICE_LINK.fullmatch(value):
        sys.stderr.write(f"{name} is {value!r}, which Kubernetes sets for a service of that name: ignored\n")
        del os.environ[name]  # so that child processes do not say it again
        value = ""
    if value:
        try:
            return parse(_sound(value))
        except BadValueError as error:
            problem = str(error)
    elif default is not None:
        return default
    raise ConfigurationError(f"{name} {problem}. Example: {name}={example}")


def _sound(value: str) -> str:
    """Refuse a value that is not UTF-8, or in quotes, which a shell removes and the files that Docker reads keep."""
    if re.fullmatch(r"""(['"]).*\1""", value, re.DOTALL):
        raise BadValueError(
            "is in quotes, which are part of it: in a file for Docker's --env-file there are none"
        )
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise BadValueError("is not UTF-8")
    return value


def _choose(value: str, choices: Collection[str]) -> str:
    if value.lower() not in choices:
        raise BadValueError(f"is {value!r}, not one of {', '.join(choices)}")
    return value.lower()


def _is_ipv6(host: str) -> bool:
    """Tell whether the host is an IPv6 address in brackets, as in a URL."""
    try:
        return bool(re.fullmatch(r"\[[0-9A-Fa-f:.]+\]", host) and IPv6Address(host[1:-1]))
    except ValueError:
        return False


def _is_port(text: str) -> bool:
    return bool(re.fullmatch(r"[0-9]{1,9}", text)) and 0 < int(text) <= GREATEST_PORT


def _split(value: str, schemes: Collection[str]) -> Url:
    """Take a URL apart. urllib's urlsplit knows one host only, and its errors quote the value."""
    if not value.startswith(tuple(f"{scheme}://" for scheme in schemes)):
        raise BadValueError(f"begins with none of {', '.join(f'{scheme}://' for scheme in schemes)}")
    parts = URL.fullmatch(value)
    hosts = [URL_HOST.fullmatch(host) for host in parts[3].split(",")] if parts else [None]
    if not parts or not all(hosts):
        raise BadValueError("is not a URL (percent-encode special characters in a password)")
    if parts[6] is not None or re.search(r"\s", value):
        raise BadValueError("has a '#' or a blank that is not percent-encoded")
    user, _, password = (parts[2] or "").partition(":")
    return Url(
        scheme=parts[1],
        user=user,
        password=password,
        hosts=",".join(host[1] or _decode(host[2]) for host in hosts if host),
        ports=",".join(host[3] or "" for host in hosts if host),
        path=parts[4] or "",
        query=parts[5] or "",
    )


def _query(query: str, known: dict[str, str]) -> dict[str, str]:
    """Return the query's parameters. Each must be in `known`, occur once, and match its pattern."""
    pairs = parse_qsl(query, keep_blank_values=True)
    found = dict(pairs)
    if len(found) < len(pairs):
        raise BadValueError("has a parameter twice")
    for key, value in pairs:
        if key not in known:
            raise BadValueError("has a parameter that is not one of " + ", ".join(sorted(known)))
        if not re.fullmatch(known[key], value):
            raise BadValueError(f"has a bad value for the parameter {key}")
        if key in FILES and value != "system" and not os.access(value, os.R_OK):
            raise BadValueError(f"has a parameter {key} that names no file which can be read")
    return found


def _decode(part: str) -> str:
    try:
        decoded = unquote(part, errors="strict")
    except UnicodeDecodeError:
        decoded = "\0"
    if "\0" in decoded or re.search(r"%(?![0-9A-Fa-f]{2})", part):
        raise BadValueError("has a '%' that begins no percent-encoded character")
    return decoded
