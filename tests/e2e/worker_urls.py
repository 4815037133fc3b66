"""The shop's routes, and others that harm the worker which answers."""

import asyncio
import os
import time

from django.http import HttpRequest, HttpResponse
from django.urls import path

from tests.shop.urls import urlpatterns as own

MIB = 1024 * 1024
eaten: list[bytearray] = []


async def eat(request: HttpRequest, mebibytes: int) -> HttpResponse:
    """Keep so much memory for ever; answers with the worker's pid."""
    eaten.append(bytearray(b"x") * mebibytes * MIB)
    return HttpResponse(str(os.getpid()))


async def wait(request: HttpRequest, milliseconds: int) -> HttpResponse:
    await asyncio.sleep(milliseconds / 1000)
    return HttpResponse(str(os.getpid()))


async def sleep(request: HttpRequest, milliseconds: int) -> HttpResponse:
    """Block the event loop in a call."""
    time.sleep(milliseconds / 1000)  # noqa: ASYNC251  that is what it is for
    return HttpResponse()


async def spin(request: HttpRequest, milliseconds: int) -> HttpResponse:
    """Block the event loop in Python."""
    until = time.monotonic() + milliseconds / 1000
    while time.monotonic() < until:
        count_in_vain()
    return HttpResponse()


async def fail(request: HttpRequest) -> HttpResponse:
    raise LookupError(str(time.monotonic()))


def count_in_vain() -> int:
    return sum(range(10_000))


urlpatterns = [
    *own,
    path("eat/<int:mebibytes>", eat),
    path("fail", fail),
    path("wait/<int:milliseconds>", wait),
    path("sleep/<int:milliseconds>", sleep),
    path("spin/<int:milliseconds>", spin),
]
