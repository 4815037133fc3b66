"""What `make up` takes from its environment."""

import pytest

from ops.embedded import environment


@pytest.mark.parametrize("variables", [{}, {"PROFILE": "", "DEBUG": ""}, {"DEBUG": "False"}])
def test_no_instruments(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    assert groups(monkeypatch, variables) == ("runtime", "embedded")


@pytest.mark.parametrize(
    "variables", [{"DEBUG": "1"}, {"PROFILE": "silk"}, {"PROFILE": "silk", "DEBUG": "no"}]
)
def test_instruments(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    assert groups(monkeypatch, variables) == ("runtime", "embedded", "profile")


def groups(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> tuple[str, ...]:
    for name in ("PROFILE", "DEBUG"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return environment.groups()
