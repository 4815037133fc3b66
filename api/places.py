"""A bound on work that takes connections of its own: how much a process runs side by side before it refuses more."""

from collections.abc import Iterator
from contextlib import contextmanager

from django.conf import settings

from api.problems import Problem


class Places:
    """The places for one kind of work in this process; a refusal has the code too_many_`kind`."""

    def __init__(self, kind: str, *, setting: str, retry_seconds: int) -> None:
        """`setting` names the setting with the number of places; `retry_seconds` is the Retry-After of a refusal."""
        self._kind, self._setting, self._retry = kind, setting, retry_seconds
        self._taken = 0

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Take a place until the block ends. Raises Problem 503 if all are taken."""
        if self._taken >= getattr(settings, self._setting):
            raise Problem(
                503,
                f"As many {self._kind} run as this server takes at a time. Try again later.",
                code=f"too_many_{self._kind}",
                headers={"Retry-After": str(self._retry)},
            )
        self._taken += 1
        try:
            yield
        finally:
            self._taken -= 1
