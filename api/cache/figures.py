"""What the metrics tell of the page cache, looked at once a second. What happens is counted where it happens."""

from collections.abc import Callable

from api.cache.changes import Announcer
from api.cache.finding import Finder
from api.cache.policy import POLICIES
from ops.instruments.metrics import metrics

REQUESTS = metrics.counter(
    "page_cache_requests_total", "Requests for cached pages.", "page", "outcome", "tier"
)
BYTES = metrics.gauge("page_cache_bytes", "What entries take in the workers' memory, roughly.").labels()
ENTRIES = metrics.gauge("page_cache_entries", "Entries in the workers' memory.").labels()
EVICTIONS = metrics.counter("page_cache_evictions_total", "Entries that left a worker's memory.", "reason")
CORRUPT = metrics.counter("page_cache_corrupt_total", "Values in Redis that were no entries.").labels()
CHANGES = metrics.counter("page_cache_invalidations_total", "Messages of changes that were heard.").labels()
SUBSCRIBED = metrics.gauge(
    "page_cache_subscribed", "1 while the worker hears of changes.", over="min"
).labels()
OPEN = metrics.gauge("redis_breaker_open", "1 while Redis is left alone.", over="max").labels()
FAILURES = metrics.counter("redis_failures_total", "Commands that Redis did not do.", "kind")


def sampler(finder: Finder, announcer: Announcer) -> Callable[[], None]:
    """A function that sets the metrics of one worker's cache."""
    shared, memory = finder.shared, finder.memory
    breaker = shared.client.breaker

    def sample() -> None:
        for policy in POLICIES.values():
            for (outcome, tier), count in policy.counts.items():
                REQUESTS.labels(policy.name, outcome, tier).value = count
        if memory is not None:
            BYTES.value, ENTRIES.value = memory.bytes, len(memory)
            for reason, count in memory.evictions.items():
                EVICTIONS.labels(reason).value = count
        CORRUPT.value, CHANGES.value = shared.corrupt, announcer.invalidations
        SUBSCRIBED.value, OPEN.value = announcer.subscribed, breaker.is_open
        for kind, count in breaker.failures.items():
            FAILURES.labels(kind).value = count

    return sample
