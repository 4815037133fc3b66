"""An upstream's content that changes seldom: asked for once in a while, and kept for when the upstream is not well.

age of the content in seconds | a request
------------------------------+--------------------------------------------------------
below `fresh`                 | gets it
below `stale`                 | waits for newer content, and gets this if there is none
more, or there is no content  | waits for content; UpstreamUnavailable if there is none

In each worker, one call at a time renews the content, for all requests that wait; it continues if they leave. Workers
share the content through Django's cache, so that the upstream gets one call in `fresh` seconds from all workers, or a
few at once. After a failure, a worker makes no call for PAUSE_SECONDS.
"""

import asyncio
import logging
import math
import time
from typing import Any, Generic, NamedTuple, TypeVar

from django.core.cache import cache
from pydantic import BaseModel, ValidationError

from ops.http.upstream import CALLS, Upstream, UpstreamUnavailable
from ops.telemetry.stopwatch import UPSTREAM

logger = logging.getLogger(__name__)

PAUSE_SECONDS = 1.0
CACHE_SECONDS = 0.05  # for a read or a write of Django's cache, in a thread
OK = 200
INVALID = "invalid"

Content = TypeVar("Content", bound=BaseModel)


class Value(NamedTuple, Generic[Content]):
    content: Content
    age: float  # seconds since it was fetched
    is_stale: bool


class Kept(Generic[Content]):
    def __init__(
        self, upstream: Upstream, schema: type[Content], *, path: str = "", fresh: float, stale: float
    ) -> None:
        """`schema` parses the JSON content, and refuses content that must not be used. Times are in seconds."""
        self.upstream, self.schema, self.path = upstream, schema, path
        self.fresh, self.stale = fresh, stale
        self._key = f"upstream:{upstream.name}:{path}"
        self._content: Content | None = None
        self._fetched = 0.0  # by the wall clock, which all workers share
        self._not_before = 0.0  # no call before then, on the monotonic clock
        self._failure: UpstreamUnavailable | None = None  # of the last call; None if it succeeded
        self._renewing: asyncio.Task[None] | None = None

    async def get(self) -> Value[Content]:
        """Return the content, renewed if it is not fresh. Raises UpstreamUnavailable if none is below `stale`."""
        if self._age() >= self.fresh and time.monotonic() >= self._not_before:
            with UPSTREAM:
                loop = asyncio.get_running_loop()
                task = self._renewing
                if task is None or task.done() or task.get_loop() is not loop:
                    task = self._renewing = loop.create_task(self._renew())
                await asyncio.shield(task)
        age = self._age()
        if self._content is None or age >= self.stale:
            reason = self._failure.reason if self._failure else INVALID
            raise UpstreamUnavailable(self.upstream.name, reason)
        return Value(self._content, age, age >= self.fresh)

    def _age(self) -> float:
        age = time.time() - self._fetched
        return max(0.0, age) if age > -self.fresh else math.inf  # from the future: the clock was set back

    # Take newer content of another worker from Django's cache, or call the upstream.
    async def _renew(self) -> None:
        shared = await self._in_cache(cache.get, self._key)
        try:
            fetched = float(shared["fetched"])
            # Another worker's content is taken if it is newer. Content from the future has the time of another clock,
            # and would be fresh for too long.
            if self._fetched < fetched < time.time() + self.fresh:
                self._content, self._fetched = self._read(shared["content"].encode()), fetched
        except (LookupError, TypeError, ValueError, AttributeError, UpstreamUnavailable):
            pass  # the cache has no content, or none for this release
        if self._age() < self.fresh:
            return
        try:
            answer = await self.upstream.get(self.path)
            if answer.status != OK:
                raise UpstreamUnavailable(self.upstream.name, INVALID, f"status {answer.status}")
            content = self._read(answer.content)
        except UpstreamUnavailable as failure:
            if self._failure is None or self._failure.reason != failure.reason:
                logger.warning("%s, so its content is not renewed", failure)
            if failure.reason == INVALID:
                CALLS.labels(self.upstream.name, INVALID).value += 1  # besides the class of its status
            self._failure = failure
            self._not_before = time.monotonic() + PAUSE_SECONDS
            return
        if self._failure:
            logger.warning("%s: its content is renewed again", self.upstream.name)
        self._content, self._fetched, self._failure = content, time.time(), None
        shared = {"fetched": self._fetched, "content": answer.content.decode()}
        await self._in_cache(cache.set, self._key, shared, self.stale)

    def _read(self, content: bytes) -> Content:
        """Parse content by the schema. Raises UpstreamUnavailable if it is invalid."""
        try:
            return self.schema.model_validate_json(content)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(map(str, first["loc"]))[:100]
            raise UpstreamUnavailable(self.upstream.name, INVALID, f"{place} {first['msg']}") from None

    @staticmethod
    async def _in_cache(work: Any, *arguments: Any) -> Any:
        """Return the result of Django's cache, or None if it takes too long or fails: the cache is optional."""
        try:
            async with asyncio.timeout(CACHE_SECONDS):
                return await asyncio.to_thread(work, *arguments)
        except Exception as error:  # noqa: BLE001  caches have errors of their own
            logger.debug("Django's cache: %s: %s", type(error).__name__, error)
            return None
