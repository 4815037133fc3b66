"""Whether a request has a thread, and what Django wants to be done there.

asgiref starts the thread of a request at its first sync_to_async: before that, no connection of the sync ORM can
have been opened for it, so none has to be closed.
"""

from asgiref.sync import AsyncToSync, SyncToAsync
from django.core.cache import caches, close_caches
from django.core.handlers.base import reset_urlconf
from django.core.signals import request_finished, request_started
from django.db import close_old_connections, reset_queries
from django.dispatch import Signal
from django.urls.base import _urlconfs  # type: ignore[attr-defined]

from ops.asgi.locals import is_set, unset


def _own(signal: Signal, *own: object) -> list[object]:
    return [receiver for receiver in signal.receivers if receiver[1]() in own]


# Django's own receivers, as it connected them: a signal that has just these concerns nobody else.
OWN = {
    request_started: _own(request_started, reset_queries, close_old_connections),
    request_finished: _own(request_finished, close_old_connections, reset_urlconf, close_caches),
}


def concerns(signal: Signal) -> bool:
    """Whether the signal, sent now, would reach anything: a connection in a thread, or a foreign receiver."""
    return signal.receivers != OWN[signal] or _may_hold_connections()


def finish_without_thread() -> None:
    """Do what Django's own receivers of request_finished do besides closing connections."""
    unset(_urlconfs)
    if is_set(caches._connections):  # type: ignore[attr-defined]  # noqa: SLF001
        close_caches()


def return_connections() -> None:
    """Give the connections of the request's thread back to their pool, after what still runs there.

    For a request that ended before its signal could be sent. Nothing is awaited, so nothing can cancel it.
    """
    context = SyncToAsync.thread_sensitive_context.get()
    if executor := SyncToAsync.context_to_thread_executor.get(context):
        executor.submit(close_old_connections)


def _may_hold_connections() -> bool:
    """Whether sync code may have run: in the request's thread, or in one that waits for this code."""
    context = SyncToAsync.thread_sensitive_context.get(None)
    return context in SyncToAsync.context_to_thread_executor or is_set(AsyncToSync.executors)
