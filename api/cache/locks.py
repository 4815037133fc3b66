"""How long a worker may have the lock of an expensive entry: a small multiple of what its computation took.

A lock that nobody holds any more, since its worker was killed, say, makes the next request of that page wait until it
expires. So it does not live as long as the policy's `cost`, which is the longest time that any page takes. A
computation that takes longer than its lock lives loses it: another worker then begins the same one.
"""

from collections import OrderedDict

from api.cache.policy import Target

FACTOR = 3  # a page may take longer than last time: another plan, a cold cache, a busy machine
MIN_SECONDS = 0.1  # two round trips to Redis at its deadline
MAX_PAGES = 4096  # that are remembered, as many as a worker's memory holds entries


class Durations:
    """What the computations of expensive entries took, as far as this worker knows."""

    def __init__(self) -> None:
        self._seconds: OrderedDict[str, float] = OrderedDict()

    def add(self, target: Target, seconds: float) -> None:
        """A computation here took so long. After one that is much quicker than those before, half of theirs holds."""
        if target.policy.cost:
            self._keep(target.key, max(seconds, self._seconds.get(target.key, 0.0) / 2))

    def lacks(self, target: Target) -> bool:
        """Whether it knows nothing of an expensive entry."""
        return bool(target.policy.cost) and target.key not in self._seconds

    def learn(self, target: Target, seconds: float) -> None:
        """Another worker says so. What this one has measured counts more."""
        if self.lacks(target):
            self._keep(target.key, seconds)

    def lock_seconds(self, target: Target) -> float:
        """How long its lock may live: `cost` until a computation has been measured."""
        seconds = self._seconds.get(target.key)
        cost = target.policy.cost
        return cost if seconds is None else min(cost, max(MIN_SECONDS, FACTOR * seconds))

    def _keep(self, key: str, seconds: float) -> None:
        self._seconds[key] = seconds
        self._seconds.move_to_end(key)
        if len(self._seconds) > MAX_PAGES:
            self._seconds.popitem(last=False)
