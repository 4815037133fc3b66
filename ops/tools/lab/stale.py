"""Stale reads: a row is written through one connection and read at once through another, beside a load.

    connection    1             2             3
    request       GET the row   PUT a value   GET the row: is it the value?

By chance each is another process of the contender, so that an answer that one process keeps is found, and one in a
cache that another request has filled meanwhile. The rows are the checks' own: no request of the load writes them.
"""

import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from threading import Event
from typing import Any

from ops.tools.lab.failure import LabError
from ops.tools.lab.scenarios import Request
from ops.tools.lab.servers import Server

RATE = 20  # pairs a second, in all: three requests each
THREADS = 4  # a slow contender makes fewer


@dataclass(slots=True)
class Seen:
    pairs: int = 0
    stale: int = 0


@contextmanager
def watched(
    server: Server, puts: list[Request], field: str, headers: Mapping[str, str], rate: int = RATE
) -> Iterator[Seen]:
    """Look until the block ends; the figures are complete then. Raises LabError for an answer that is none."""
    total, over = Seen(), Event()
    rows = [*{put.path: put for put in puts}.values()]  # none for two threads

    def look(number: int) -> Seen:
        seen = Seen()
        own = rows[number::THREADS]
        while not over.wait(THREADS / rate) and own:
            put = own[seen.pairs % len(own)]
            value = 1_000_000 + seen.pairs * THREADS + number
            _answer(server, Request(put.path), {})
            body = json.dumps(json.loads(put.body) | {field: value})
            _answer(server, put._replace(body=body, closes=False), headers)
            seen.stale += _answer(server, Request(put.path), {})[field] != value
            seen.pairs += 1
        return seen

    with ThreadPoolExecutor(THREADS) as threads:
        looking = [threads.submit(look, number) for number in range(THREADS)]
        try:
            yield total
        finally:
            over.set()
        for one in looking:
            seen = one.result()
            total.pairs += seen.pairs
            total.stale += seen.stale


def _answer(server: Server, request: Request, headers: Mapping[str, str]) -> Any:
    status, body = server.send(request, headers)
    if status != HTTPStatus.OK:
        raise LabError(f"{request.method} {request.path} has the status {status}: {body[:300]!r}")
    return json.loads(body)
