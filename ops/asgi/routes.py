"""Remembers which view a path leads to: Django tries its patterns one by one, 16 us for /api/products."""

from typing import Any, cast
from weakref import WeakKeyDictionary

from django.conf import settings
from django.urls import ResolverMatch, URLResolver

# Paths remembered at most. A route without parameters is one path, unless it is a regular expression.
LIMIT = 1024

_matches: WeakKeyDictionary[URLResolver, dict[str, ResolverMatch]] = WeakKeyDictionary()


def resolve(resolver: URLResolver, path: str) -> ResolverMatch:
    """Like `resolver.resolve(path)`, but fast for the paths of routes without parameters.

    A parameter's converter may depend on more than the path, and with translation a pattern may too.
    """
    known = _matches.setdefault(resolver, {})
    match: Any = known.get(path)
    if match is None:
        match = resolver.resolve(path)
        if match.args or match.captured_kwargs or settings.USE_I18N or len(known) >= LIMIT:
            return cast("ResolverMatch", match)
        known[path] = match
    return _copy(match)


def _copy(match: ResolverMatch) -> ResolverMatch:
    """A match of the request's own, whose arguments a middleware may change. ResolverMatch refuses copy.copy()."""
    copy = ResolverMatch.__new__(ResolverMatch)
    copy.__dict__.update(match.__dict__, kwargs=dict(match.kwargs))
    return copy
