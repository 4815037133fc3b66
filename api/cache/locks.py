"""How long a worker may have the lock of an expensive entry: a small multiple of the time that its computation took.

If a worker is killed, its lock remains, and requests for that page wait until the lock expires. So a lock expires
after the policy's `cost`, the longest time that any page takes, only while no computation of its page has been
measured; afterwards it expires sooner where the page is quicker. If a computation takes longer than its lock lives,
another worker gets the lock, and begins the same computation.
"""

from collections import OrderedDict

from api.cache.policy import Target

FACTOR = 3  # a page may take longer than last time: another plan, a cold cache, a busy machine
MIN_SECONDS = 0.1  # two round trips to Redis that each take as long as its deadline allows
MAX_PAGES = 4096  # that are remembered; the memory of a worker holds as many entries


class Durations:
    """The seconds that computations of expensive entries took, as far as this worker knows."""

    def __init__(self) -> None:
        self._seconds: OrderedDict[str, float] = OrderedDict()

    def add(self, target: Target, seconds: float) -> None:
        """Remember `seconds`, measured here, or half of the time remembered so far if that half is longer."""
        if target.policy.cost:
            self._keep(target.key, max(seconds, self._seconds.get(target.key, 0.0) / 2))

    def lacks(self, target: Target) -> bool:
        """Whether the entry is expensive and no time is remembered for it."""
        return bool(target.policy.cost) and target.key not in self._seconds

    def learn(self, target: Target, seconds: float) -> None:
        """Remember `seconds`, measured by another worker, unless a time is remembered already."""
        if self.lacks(target):
            self._keep(target.key, seconds)

    def lock_seconds(self, target: Target) -> float:
        """Return the seconds that the entry's lock may live: `cost` while no time is remembered.

        Afterwards it is FACTOR times that time, MIN_SECONDS at least and `cost` at most.
        """
        seconds = self._seconds.get(target.key)
        cost = target.policy.cost
        return cost if seconds is None else min(cost, max(MIN_SECONDS, FACTOR * seconds))

    def _keep(self, key: str, seconds: float) -> None:
        self._seconds[key] = seconds
        self._seconds.move_to_end(key)
        if len(self._seconds) > MAX_PAGES:
            self._seconds.popitem(last=False)
