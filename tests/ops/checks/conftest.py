from collections.abc import Callable, Sequence

import pytest
from django.core.checks import CheckMessage, run_checks

Find = Callable[..., list[CheckMessage]]


@pytest.fixture
def find() -> Find:
    """What `manage.py check --tag performance --deploy` says, of one id."""

    def find(number: str, databases: Sequence[str] = ()) -> list[CheckMessage]:
        said = run_checks(tags=["performance"], include_deployment_checks=True, databases=databases)
        assert all(message.id and message.hint and "docs/checks.md" in message.hint for message in said)
        return [message for message in said if message.id == f"ops.{number}"]

    return find
