"""One form for every line that is logged: by structlog, by the standard library, by gunicorn and uvicorn.

Lines are JSON objects, or for people. Each has the id of the request it belongs to; none has a secret, whoever wrote
it; and of one logger no more are written than a disk can bear.
"""

import json
import logging
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from time import monotonic
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import orjson
import structlog
from structlog.dev import ConsoleRenderer, plain_traceback
from structlog.stdlib import ProcessorFormatter
from structlog.types import EventDict

from ops.instruments.stopwatch import current

# Lines at once, and then a second, of each logger and process. Five workers whose every request raises write 0.4 GB a
# day (4 kB a traceback), instead of a disk in an hour. What is left out is counted in the logger's next line.
BURST, RATE = 50, 0.2
LONGEST = 10_000  # characters of a text in a line: a traceback fits, a URL of a megabyte does not
# What a client sent to prove who it is, should an exception quote it: as a header, in a repr, in a dictionary.
CREDENTIALS = re.compile(
    r"""(?ix) ( (?:authorization|x-api-key|cookie) (?: \s | \\ | b(?=\\?["']) )* ["':=,]
                (?: ["'\s\\:=,(] | b(?=\\?["']) )* ) [^"'\\\r\n]+
            | ( \b(?:bearer|basic)\s+ ) [\w.~+/=-]{16,}"""
)
HIDDEN = "***"
SHORTEST = 4  # characters of a secret: a shorter one is part of too many words to be hidden

Secrets = Callable[[], Iterable[str]]


def configuration(*, level: str, form: str, secrets: Secrets) -> dict[str, Any]:
    """Django's LOGGING and gunicorn's logconfig_dict. `form` is json or console; `secrets()` never show."""
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
            # It warns of every 4xx. Those are the clients' errors: any of them could fill the log.
            "django.request": {"level": "ERROR"},
            # It tells of every connection that the sync ORM takes.
            "psycopg.pool": {"level": "WARNING"},
            # Sampled where it is written, ops/asgi/telemetry.py.
            "ops.access": {"handlers": ["access"], "level": "INFO", "propagate": False},
            # gunicorn gives it a format of its own; uvicorn's worker uses its handlers.
            "gunicorn.error": {"handlers": ["stderr"], "level": level, "propagate": False},
        },
    }


class Formatter(ProcessorFormatter):
    """Also lets structlog's own loggers speak through the standard library's."""

    def __init__(self, *, form: str, secrets: Secrets) -> None:
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
                _shortened,
                _ordered,
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
        spellings = {spelling for secret in secrets() for spelling in _spellings(secret)}
        longest_first = sorted(spellings, key=len, reverse=True)
        self._secrets = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")

    def format(self, record: logging.LogRecord) -> str:
        line = CREDENTIALS.sub(rf"\1\2{HIDDEN}", super().format(record))
        return self._secrets.sub(HIDDEN, line)


class Once(logging.Filter):
    """Leaves an error response without an exception to the line that telemetry writes of it, which says more."""

    def filter(self, record: logging.LogRecord) -> bool:
        return record.name != "django.request" or bool(record.exc_info)


class Bounded(logging.Filter):
    """A token bucket for each logger. Debug lines are for who wants them all."""

    def __init__(self) -> None:
        super().__init__()
        self._left: dict[
            str, tuple[float, float, int]
        ] = {}  # tokens, when, lines left out since the last one

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno <= logging.DEBUG:
            return True
        now = monotonic()
        tokens, since, suppressed = self._left.get(record.name, (BURST, now, 0))
        tokens = min(BURST, tokens + (now - since) * RATE)
        if tokens < 1:
            self._left[record.name] = tokens, now, suppressed + 1
            return False
        record.suppressed = suppressed
        self._left[record.name] = tokens - 1, now, 0
        return True


def passwords_of(url: str) -> list[str]:
    """As the URL spells it, before its host or in its query, and decoded."""
    parts = urlsplit(url)
    spelled = [parts.password or "", *re.findall(r"(?:^|&)password=([^&]*)", parts.query)]
    return [*spelled, *map(unquote, spelled)]


def _spellings(secret: str) -> Iterator[str]:
    """As it is or as in a URL; that as it is or as in a Python string; and that as it is or as in JSON."""
    if len(secret) < SHORTEST:
        return
    for plain in (secret, quote(secret, safe="")):
        escaped = plain.replace("\\", "\\\\")
        for text in (plain, escaped, escaped.replace("'", "\\'"), escaped.replace('"', '\\"')):
            yield from (text, _json(text)[1:-1])


def _circumstances(_logger: object, _method: str, event: EventDict) -> EventDict:
    event["pid"] = os.getpid()
    if watch := current.get():
        event.setdefault("request_id", watch.request_id.decode())
    return event


def _suppressed(_logger: object, _method: str, event: EventDict) -> EventDict:
    if suppressed := getattr(event["_record"], "suppressed", 0):
        event["suppressed"] = suppressed
    return event


def _ordered(_logger: object, _method: str, event: EventDict) -> EventDict:
    first = {name: event[name] for name in ("timestamp", "level", "logger", "event")}
    return {**first, **event}


def _shortened(_logger: object, _method: str, event: EventDict) -> EventDict:
    """The end of a traceback says more than its beginning."""
    for name in ("event", "exception"):
        text = event.get(name, "")
        if len(text) > LONGEST:
            event[name] = f"{text[: LONGEST // 2]} ... {text[-LONGEST // 2 :]}"
    return event


def _json(value: object, **_options: object) -> str:
    try:
        return orjson.dumps(value, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
    except TypeError:  # a lone surrogate, which is no UTF-8
        return json.dumps(value, default=str)
