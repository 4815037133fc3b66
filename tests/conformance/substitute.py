"""Runs Django's runtests.py in a process where ASGIHandler is the lean one, under every name that a test imports."""

import runpy
import sys
from pathlib import Path

import django.core.asgi
import django.core.handlers.asgi

from ops.asgi.handler import LeanASGIHandler

# Here, not on a command line: Django's runner starts no other process of its own then. The settings are those of
# Django's tests, whatever DJANGO_SETTINGS_MODULE is.
ARGUMENTS = ["asgi", "--parallel=1", "--settings=test_sqlite"]

if __name__ == "__main__":
    runtests = Path(sys.argv[1])
    for module in (django.core.asgi, django.core.handlers.asgi):
        setattr(module, "ASGIHandler", LeanASGIHandler)  # noqa: B010  mypy: not assigning to a type
    sys.path.insert(0, str(runtests.parent))
    sys.argv = [str(runtests), *ARGUMENTS]
    try:
        runpy.run_path(str(runtests), run_name="__main__")
    finally:
        if sys.modules["asgi.tests"].ASGIHandler is not LeanASGIHandler:
            sys.exit("Django's tests imported another handler")
