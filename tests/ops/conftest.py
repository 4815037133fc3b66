"""Coroutine functions as tests."""

from tests.loops import pytest_pyfunc_call, runner

__all__ = ["pytest_pyfunc_call", "runner"]
