"""What `make up` takes from its environment."""

import os
from pathlib import Path

import pytest

from ops.tools.embedded import environment
from ops.tools.embedded.servers import Servers


@pytest.mark.parametrize("variables", [{}, {"PROFILE": "", "DEBUG": ""}, {"DEBUG": "False"}])
def test_no_instruments(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    assert groups(monkeypatch, variables) == ("runtime", "embedded")


@pytest.mark.parametrize(
    "variables", [{"DEBUG": "1"}, {"PROFILE": "silk"}, {"PROFILE": "silk", "DEBUG": "no"}]
)
def test_instruments(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    assert groups(monkeypatch, variables) == ("runtime", "embedded", "profile")


def test_what_is_meant_for_others_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    others = (
        "PYTHONPATH",
        "PYTHONHOME",
        "PYTHONWARNINGS",
        "VIRTUAL_ENV",
        "CONDA_PREFIX",
        "UV_PYTHON",
        "PGPORT",
    )
    stay = (
        "PYTHONUNBUFFERED",
        "UV_INDEX_URL",
        "UV_INDEX_INNER_PASSWORD",
        "HTTPS_PROXY",
        "SSL_CERT_FILE",
        "PAGER",
    )
    modules = {"mysite.settings": False, "config.settings.local": False, "config.settings": True}
    for module, kept in modules.items():
        values = dict.fromkeys((*others, *stay), "value") | {"DJANGO_SETTINGS_MODULE": module}
        monkeypatch.setattr(os, "environ", values)
        environment.leave_foreign()
        assert {*os.environ} == {*stay, *(["DJANGO_SETTINGS_MODULE"] if kept else [])}


def test_a_database_of_the_users_has_its_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {"PGPASSFILE": "file", "DATABASE_URL": "postgresql://h/d"})
    environment.leave_foreign()
    assert "PGPASSFILE" in os.environ


def groups(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> tuple[str, ...]:
    for name in ("PROFILE", "DEBUG"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return environment.groups()


def test_a_secret_from_a_file_needs_no_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("SECRET_KEY", raising=False)
    monkeypatch.setenv("SECRET_KEY_FILE", "/run/secrets/key")
    assert "SECRET_KEY" not in environment.complete(Servers(tmp_path, durable=False))
