"""How a response is closed without a thread, and when it needs one."""
# ruff: noqa: SLF001  the response's closers have no public name

from contextlib import suppress
from typing import Any

from django.http.response import HttpResponseBase


def may_block(request: Any, response: Any) -> bool:
    """Whether closing could wait for a disk or run foreign code: uploaded files, closers, an overridden close.

    One closer is the request's own, which Django adds to each response. Both are None until they exist.
    """
    if getattr(request, "_files", None):
        return True
    return response is not None and (
        len(response._resource_closers) > 1 or response.__class__.close is not HttpResponseBase.close
    )


def close(response: Any) -> None:
    """HttpResponseBase.close() without its signal, request_finished."""
    for closer in response._resource_closers:
        with suppress(Exception):
            closer()
    response._resource_closers.clear()
    response.closed = True
