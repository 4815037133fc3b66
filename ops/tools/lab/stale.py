"""Stale reads: a row is written through one connection and read at once through another, beside a load.

    connection    1             2             3
    request       GET the row   PUT a value   GET the row: is it the value?

By chance, each connection leads to another process of the contender. So an old answer is found if one process keeps
it, and if another request has put it into a shared cache meanwhile. No request of the load writes these rows.
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

RATE = 20  # pairs of a PUT and a GET a second, by all threads; a slow contender makes fewer
THREADS = 4


@dataclass(slots=True)
class Seen:
    """The number of writes followed by a read, and of these reads, the number that did not see the write."""

    pairs: int = 0
    stale: int = 0


@contextmanager
def watched(
    server: Server, puts: list[Request], field: str, headers: Mapping[str, str], rate: int = RATE
) -> Iterator[Seen]:
    """Look for stale reads until the block ends, and yield the figures, which are complete after the block.

    Each PUT is one of `puts` with a new integer in `field`. Raises LabError after the block for a status but 200.
    """
    total, over = Seen(), Event()
    rows = [*{put.path: put for put in puts}.values()]  # each row once, so that no two threads write it

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
