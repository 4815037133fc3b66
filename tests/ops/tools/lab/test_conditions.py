"""What a run notes down about the servers behind the contenders."""

import os

import pytest

from ops.tools.lab.conditions import redis_information
from ops.tools.lab.cpu import redis_process
from ops.tools.lab.failure import LabError


def test_redis_is_found() -> None:
    said = redis_information(os.environ["REDIS_URL"])
    assert redis_process(said["process_id"]) == said["process_id"]


def test_another_process_is_not_redis() -> None:
    """The number may be that of a process in a container, where it means another one."""
    assert redis_process(os.getpid()) is None
    assert redis_process(2**22 + 1) is None


@pytest.mark.parametrize("url", ["redis://127.0.0.1:1/0", "127.0.0.1:6379"])
def test_redis_is_not_there(url: str) -> None:
    with pytest.raises(LabError, match=r"\AREDIS_URL: .+"):
        redis_information(url)
