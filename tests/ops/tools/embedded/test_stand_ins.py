"""The stand-ins of other services: each file at an address, which a variable of its name has."""

from pathlib import Path

import httpx
import pytest

from ops.tools.embedded import stand_ins
from ops.tools.embedded.stand_ins import StandIns


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with two of them."""
    directory = tmp_path / "zoo" / "stand_ins"
    directory.mkdir(parents=True)
    (directory / "weather.json").write_text('{"sun": true}')
    (directory / "prices.json").write_text("{}")
    (tmp_path / ".local").mkdir()
    monkeypatch.setattr(stand_ins, "ROOT", tmp_path)
    monkeypatch.setattr(stand_ins, "LOCAL", tmp_path / ".local")
    return tmp_path


def test_a_service_that_the_environment_names_has_none(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEATHER_URL", "https://weather.example.com")
    monkeypatch.setenv("PRICES_URL_FILE", "/run/secrets/prices")
    assert StandIns().environment == {}


def test_each_is_served_until_the_end(root: Path) -> None:
    running = StandIns()
    assert {*running.environment} == {"WEATHER_URL", "PRICES_URL"}
    running.start()
    try:
        assert httpx.get(running.environment["WEATHER_URL"]).json() == {"sun": True}
        address = httpx.URL(running.environment["PRICES_URL"])
        assert httpx.get(address.join("/../zoo/stand_ins/weather.json")).status_code == 404  # the files alone
    finally:
        StandIns().stop()  # those of a supervisor that was killed, too
        assert not running.alive()
        running.stop()
    with pytest.raises(httpx.ConnectError):
        httpx.get(address)


def test_the_service_itself_may_be_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEATHER_URL", "https://weather.example.com")
    assert [*StandIns().environment] == ["PRICES_URL"]


def test_there_need_be_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stand_ins, "ROOT", tmp_path)
    assert StandIns().environment == {}
