"""The metrics of the page cache, sampled once a second. Events are counted where they happen."""

from collections.abc import Callable

from api.cache.changes import Publisher
from api.cache.lookup import Lookup
from api.cache.policy import POLICIES
from ops.telemetry.metrics import metrics

REQUESTS = metrics.counter(
    "page_cache_requests_total", "Requests for cached pages.", "page", "outcome", "tier"
)
BYTES = metrics.gauge("page_cache_bytes", "What entries take in the workers' memory, roughly.").labels()
ENTRIES = metrics.gauge("page_cache_entries", "Entries in the workers' memory.").labels()
EVICTIONS = metrics.counter("page_cache_evictions_total", "Entries that left a worker's memory.", "reason")
CORRUPT = metrics.counter("page_cache_corrupt_total", "Values in Redis that were no entries.").labels()
CHANGES = metrics.counter("page_cache_invalidations_total", "Messages of changes that were heard.").labels()
SUBSCRIBED = metrics.gauge("page_cache_subscribed", "1 while the worker hears of changes.", over="min")


def sampler(lookup: Lookup, publisher: Publisher) -> Callable[[], None]:
    """Return a function that sets the metrics of one worker's cache."""
    shared, memory = lookup.shared, lookup.memory
    subscribed = SUBSCRIBED.labels()  # the metric exists only in a worker with a page cache

    def sample() -> None:
        for policy in POLICIES.values():
            for (outcome, tier), count in policy.counts.items():
                REQUESTS.labels(policy.name, outcome, tier).value = count
        BYTES.value, ENTRIES.value = memory.bytes, len(memory)
        for reason, count in memory.evictions.items():
            EVICTIONS.labels(reason).value = count
        CORRUPT.value, CHANGES.value = shared.corrupt, publisher.invalidations
        subscribed.value = publisher.subscribed

    return sample
