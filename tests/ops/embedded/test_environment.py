"""What `make up` takes from its environment."""

import pytest

from ops.embedded import environment


@pytest.mark.parametrize(
    ("variables", "instrumented"),
    [
        ({}, False),
        ({"PROFILE": "", "DEBUG": ""}, False),
        ({"DEBUG": "False"}, False),
        ({"DEBUG": "1"}, True),
        ({"PROFILE": "silk"}, True),
    ],
)
def test_instruments_are_installed_where_they_are_asked_for(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], instrumented: bool
) -> None:
    for name in ("PROFILE", "DEBUG"):
        monkeypatch.setenv(name, variables.get(name, ""))
    assert ("profile" in environment.groups()) == instrumented
