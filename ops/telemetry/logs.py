"""One form for every line that is logged: by structlog, by the standard library, by gunicorn and uvicorn.

Lines are JSON objects, or text for people. Each has the id of the request it belongs to, none has a secret, and each
logger writes no more of them than a disk can bear: many lines of one kind become one line and a count.
"""

import json
import logging
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from time import monotonic, time
from traceback import walk_tb
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import orjson
import structlog
from structlog.dev import ConsoleRenderer, plain_traceback
from structlog.stdlib import ProcessorFormatter
from structlog.types import EventDict

from ops.telemetry.stopwatch import current

# Lines that each logger of a process may write at once, and then in a second. If every request raises, five workers
# write 0.4 GB a day (4 kB a traceback), and do not fill a disk in an hour. A later line counts those left out.
BURST_LINES, LINES_PER_SECOND = 50, 0.2
# Seconds between two lines about the same fault; the second has the count of those left out, as `suppressed`.
SAME_SECONDS = 10.0
MAX_FAULTS = 500  # faults that are told apart
# Loggers that repeat a message: this one reports each attempt to connect in the same few words.
REPEATING = frozenset(("psycopg.pool",))
MAX_TEXT_CHARACTERS = 10_000  # characters of a text in a line: a traceback fits, a URL of a megabyte does not
# A client's credentials, as an exception may quote them: as a header, in a repr, in a dictionary.
CREDENTIALS = re.compile(
    r"""(?ix) ( (?:authorization|x-api-key|cookie) (?: \s | \\ | b(?=\\?["']) )* ["':=,]
                (?: ["'\s\\:=,(] | b(?=\\?["']) )* ) [^"'\\\r\n]+
            | ( \b(?:bearer|basic)\s+ ) [\w.~+/=-]{16,}
            | ( \b[a-z0-9]{1,32}_[a-z0-9]{12}_ ) [a-z0-9]{43}\b"""  # an API key keeps its prefix: api/keys/minting.py
)
HIDDEN = "***"
MIN_KEY_CHARACTERS = 16  # of a hidden value in a URL's query: shorter ones, such as `json`, are in many lines
MIN_SECRET_CHARACTERS = 4  # characters of a secret: a shorter one is part of too many words to be hidden

Secrets = Callable[[], Iterable[str]]


def configuration(*, level: str, form: str, secrets: Secrets) -> dict[str, Any]:
    """Return Django's LOGGING and gunicorn's logconfig_dict. `form` is json or console; `secrets()` are hidden."""
    stderr = {"class": "logging.StreamHandler", "formatter": "structured"}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"structured": {"()": Formatter, "form": form, "secrets": secrets}},
        "filters": {"once": {"()": Once}, "bounded": {"()": Bounded}},
        "handlers": {"stderr": stderr | {"filters": ["once", "bounded"]}, "access": stderr},
        "root": {"handlers": ["stderr"], "level": level},
        "loggers": {
            # Django's own handlers (console in DEBUG, mail to ADMINS) would say everything twice.
            "django": {"handlers": [], "level": "NOTSET", "propagate": True},
            # Django warns of every 4xx. These are the clients' errors: any client could fill the log.
            "django.request": {"level": "ERROR"},
            # At INFO, the pool tells of every connection that the sync ORM takes.
            "psycopg.pool": {"level": "WARNING"},
            # ops/asgi/telemetry.py samples these lines.
            "ops.access": {"handlers": ["access"], "level": "INFO", "propagate": False},
            # Each write has a line, and none may be left out.
            "api.audit": {"handlers": ["access"], "level": "INFO", "propagate": False},
            # gunicorn gives it a format of its own; uvicorn's worker uses its handlers.
            "gunicorn.error": {"handlers": ["stderr"], "level": level, "propagate": False},
        },
    }


class Formatter(ProcessorFormatter):
    """Formats the lines of all loggers, and makes structlog's loggers write through the standard library's."""

    def __init__(self, *, form: str, secrets: Secrets) -> None:
        global _is_json  # noqa: PLW0603  as structlog's configuration, it is the process's
        _is_json = form == "json"
        described: list[Any] = [
            structlog.stdlib.add_logger_name,
            structlog.stdlib.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _circumstances,
        ]
        rendered: list[Any] = (
            [ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain_traceback)]
            if form == "console"
            else [
                structlog.processors.format_exc_info,
                _shorten_and_order,
                structlog.processors.JSONRenderer(_json),
            ]
        )
        super().__init__(
            processors=[_suppressed, self.remove_processors_meta, *rendered],
            foreign_pre_chain=described,
        )
        structlog.configure(
            processors=[structlog.stdlib.filter_by_level, *described, self.wrap_for_formatter],
            wrapper_class=structlog.stdlib.BoundLogger,
            logger_factory=structlog.stdlib.LoggerFactory(),
            cache_logger_on_first_use=True,
        )
        # A secret may be in a line plain or as in a URL, then escaped as in a Python string, then as in JSON.
        spellings: set[str] = set()
        for secret in secrets():
            for plain in (secret, quote(secret, safe="")) if len(secret) >= MIN_SECRET_CHARACTERS else ():
                escaped = plain.replace("\\", "\\\\")
                for text in (plain, escaped, escaped.replace("'", "\\'"), escaped.replace('"', '\\"')):
                    spellings |= {text, _json(text)[1:-1]}
        longest_first = sorted(spellings, key=len, reverse=True)
        self._secrets = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")

    def format(self, record: logging.LogRecord) -> str:
        if isinstance(record, ReadyLine):
            suppressed = getattr(record, "suppressed", 0)
            return f'{record.line[:-1]},"suppressed":{suppressed}}}' if suppressed else record.line
        line = CREDENTIALS.sub(rf"\1\2\3{HIDDEN}", super().format(record))
        return self._secrets.sub(HIDDEN, line)


class ReadyLine(logging.LogRecord):
    """A record with a finished line. It lacks the attributes that logging computes for other records."""

    line: str

    def __init__(self, name: str, line: str) -> None:  # not the inherited one, which takes 20 us
        self.__dict__ = {**UNKNOWN, "name": name, "msg": line, "line": line, "created": time()}


# The attributes of an empty record, for the formats of other handlers.
UNKNOWN = vars(logging.LogRecord("", logging.INFO, "", 0, "", None, None))


def inform(logger: "logging.Logger", event: str, fields: Mapping[str, Any]) -> None:
    """Log at INFO, as structlog does, but do not search the line for secrets: `fields` can hold none.

    In JSON this takes 15 us instead of 95, which was a quarter of a write's time.
    """
    if not _is_json:
        structlog.get_logger(logger.name).info(event, **fields)
        return
    if not logger.isEnabledFor(logging.INFO):
        return
    now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    line = {
        "timestamp": now,
        "level": "info",
        "logger": logger.name,
        "event": event,
        **fields,
        "pid": os.getpid(),
    }
    if watch := current.get():
        line["request_id"] = watch.request_id.decode()
    logger.handle(ReadyLine(logger.name, _json(line)))


_is_json = False  # whether lines are JSON


class Once(logging.Filter):
    """Drops records of django.request without an exception: telemetry logs the same failure with more detail."""

    def filter(self, record: logging.LogRecord) -> bool:
        return record.name != "django.request" or bool(record.exc_info)


Fault = tuple[object, ...]


def fault_of(record: logging.LogRecord) -> Fault:
    """Return a key that is the same for lines about one fault, which many requests may write; empty for other lines.

    A fault is an error with its traceback, or an answer of a route with its status and code.
    """
    fields = record.msg if isinstance(record.msg, dict) else {}
    _, error, trace = record.exc_info or (sys.exc_info() if fields.get("exc_info") else (None, None, None))
    if error:
        return (type(error), *((frame.f_code, line) for frame, line in walk_tb(trace)))
    if "status" in fields:
        return tuple(fields.get(name) for name in ("event", "route", "status", "code"))
    return (record.msg,) if record.name in REPEATING else ()


class Bounded(logging.Filter):
    """Bounds lines: a token bucket for each logger, and a pause for each fault. Debug lines are not bounded."""

    def __init__(self) -> None:
        global _bounded  # noqa: PLW0603  as structlog's configuration, it is the process's
        super().__init__()
        # By logger: its tokens, when they were counted, and the lines left out since the last one.
        self._left: dict[str, tuple[float, float, int]] = {}
        # By logger and fault: when its last line was, and the lines left out since then.
        self._faults: dict[tuple[str, Fault], tuple[float, int]] = {}
        _bounded = self

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno <= logging.DEBUG:
            return True
        fault = fault_of(record)
        if not self.has_room(record.name, fault):
            return False
        tokens, since, suppressed = self._left[record.name]
        if fault:
            _, record.suppressed = self._faults.get((record.name, fault), (0.0, 0))
            if len(self._faults) < MAX_FAULTS or (record.name, fault) in self._faults:
                self._faults[record.name, fault] = since, 0
        else:
            record.suppressed, suppressed = suppressed, 0
        self._left[record.name] = tokens - 1, since, suppressed
        return True

    def has_room(self, name: str, fault: Fault = ()) -> bool:
        """Whether a line of this logger would be written now. If not, it counts as left out."""
        now = monotonic()
        tokens, since, suppressed = self._left.get(name, (BURST_LINES, now, 0))
        tokens = min(BURST_LINES, tokens + (now - since) * LINES_PER_SECOND)
        has_room = tokens >= 1
        if known := self._faults.get((name, fault)):
            last, left_out = known
            has_room = has_room and now - last >= SAME_SECONDS
            self._faults[name, fault] = last, left_out + (not has_room)
        else:
            suppressed += not has_room
        self._left[name] = tokens, now, suppressed
        return has_room


_bounded: Bounded | None = None  # the filter of the handler that all loggers share


def has_room(name: str, *fault: object) -> bool:
    """Whether a line of a logger would be written now. If not, it counts as left out.

    `fault` is the line's event, route, status and code (None if it has none). A caller asks before it makes a line
    that many requests would write: making one takes 60 us, a tenth of a write's time.
    """
    return not _bounded or _bounded.has_room(name, fault)


def passwords_of(url: str) -> list[str]:
    """Return the passwords before the host and in the query of a URL, as it spells them and decoded."""
    parts = urlsplit(url)
    spelled = [parts.password or "", *re.findall(r"(?:^|&)password=([^&]*)", parts.query)]
    return [*spelled, *map(unquote, spelled)]


def values_of(url: str) -> list[str]:
    """Return the URL's query, and the values in it that are long enough for a key, as it spells them and decoded."""
    query = urlsplit(url).query
    values = [pair.partition("=")[2] for pair in query.split("&")]
    keys = [value for value in values if len(value) >= MIN_KEY_CHARACTERS]
    return [query, *keys, *map(unquote, keys)]


def _circumstances(_logger: object, _method: str, event: EventDict) -> EventDict:
    event["pid"] = os.getpid()
    if watch := current.get():
        event.setdefault("request_id", watch.request_id.decode())
    return event


def _suppressed(_logger: object, _method: str, event: EventDict) -> EventDict:
    if suppressed := getattr(event["_record"], "suppressed", 0):
        event["suppressed"] = suppressed
    return event


def _shorten_and_order(_logger: object, _method: str, event: EventDict) -> EventDict:
    """Cut long texts in the middle, since a traceback's end says most, and put the common fields first."""
    for name in ("event", "exception"):
        text = event.get(name, "")
        if len(text) > MAX_TEXT_CHARACTERS:
            event[name] = f"{text[: MAX_TEXT_CHARACTERS // 2]} ... {text[-MAX_TEXT_CHARACTERS // 2 :]}"
    first = {name: event[name] for name in ("timestamp", "level", "logger", "event")}
    return {**first, **event}


def _json(value: object, **_options: object) -> str:
    try:
        return orjson.dumps(value, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
    except TypeError:  # a lone surrogate, which is no UTF-8
        return json.dumps(value, default=str)
