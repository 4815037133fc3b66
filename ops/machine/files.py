"""How many files this process may have open, connections among them."""

import resource
from contextlib import suppress

# More connections than an event loop can serve. Some hard limits are a billion; code that closes or copies all
# possible files then takes minutes.
MOST = 65_536
# Files besides clients' connections: the pools of Postgres (8) and Redis (40), files of metrics and logs, uploads on
# their way to the disk. For want of them, clients that have a connection would get errors.
RESERVE = 100


def raise_limit() -> None:
    """Raise the soft limit to the hard one: Docker 29 gives 1,024, other systems less. Children inherit it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST if hard == resource.RLIM_INFINITY else min(hard, MOST)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(ValueError, OSError):  # macOS has one more limit, which it does not tell
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def most_connections() -> int:
    """The number of the file that no connection should have, so that the reserve stays."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MOST if limit == resource.RLIM_INFINITY else limit - min(RESERVE, limit // 2)
