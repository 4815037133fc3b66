"""Each reader returns its type, or stops with one line that names the variable and never a secret."""

import os
from collections.abc import Callable

import pytest

from config import env


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    return lambda value: monkeypatch.setenv("SETTING", value)


Given = Callable[[str], None]


def port() -> int:
    return env.integer("SETTING", least=1, most=65535, default=8000)


def refusal(read: Callable[[], object]) -> str:
    with pytest.raises(env.ConfigurationError) as stopped:
        read()
    message = str(stopped.value)
    assert message.startswith("SETTING ")
    assert "Example: SETTING=" in message
    assert "\n" not in message
    return message


@pytest.mark.parametrize("value", ["1", "true", "Yes", "ON"])
def test_boolean_true(given: Given, value: str) -> None:
    given(value)
    assert env.boolean("SETTING", default=False) is True


@pytest.mark.parametrize("value", ["0", "false", "No", "OFF"])
def test_boolean_false(given: Given, value: str) -> None:
    given(value)
    assert env.boolean("SETTING", default=True) is False


@pytest.mark.parametrize("value", ["2", "ja", "True!", "1\n1"])
def test_boolean_refused(given: Given, value: str) -> None:
    given(value)
    assert repr(value) in refusal(lambda: env.boolean("SETTING", default=False))


@pytest.mark.parametrize(("value", "expected"), [("1", 1), ("65535", 65535), (" 80 ", 80), ("", 8000)])
def test_integer(given: Given, value: str, expected: int) -> None:
    given(value)
    assert port() == expected


@pytest.mark.parametrize("value", ["0", "65536", "-1", "8e3", "8_000", "٨٠", "0x50", "9" * 5000])
def test_integer_refused(given: Given, value: str) -> None:
    given(value)
    refusal(port)


@pytest.mark.parametrize(("value", "expected"), [("0", 0), ("1", 1), ("0.01", 0.01), (".5", 0.5), ("1.0", 1)])
def test_fraction(given: Given, value: str, expected: float) -> None:
    given(value)
    assert env.fraction("SETTING", default=0.5) == expected


@pytest.mark.parametrize("value", ["1.1", "2", "-0.1", "1e-3", "nan", "50%", "0,5", "."])
def test_fraction_refused(given: Given, value: str) -> None:
    given(value)
    refusal(lambda: env.fraction("SETTING", default=0.5))


def test_word(given: Given) -> None:
    def read() -> str:
        return env.word("SETTING", pattern="[a-z]+", what="a word", default="none")

    given("abc")
    assert read() == "abc"
    given("a b")
    assert "is 'a b', which is not a word" in refusal(read)


def test_choice_takes_any_case_and_lists_the_choices(given: Given) -> None:
    def read() -> str:
        return env.choice("SETTING", ["debug", "info"], default="info")

    given("DEBUG")
    assert read() == "debug"
    given("loud")
    assert "debug, info" in refusal(read)


def test_package_is_one_of_the_choices_and_installed(given: Given) -> None:
    def read() -> str:
        return env.package("SETTING", ["silk", "nowhere"], lock="requirements/some.txt")

    given("")
    assert read() == ""
    given("Silk")
    assert read() == "silk"
    given("json")
    assert "silk, nowhere" in refusal(read)
    given("nowhere")
    with pytest.raises(env.ConfigurationError, match=r"^SETTING .* pip install -r requirements/some\.txt$"):
        read()


@pytest.mark.parametrize("value", [None, "", "  "])
def test_empty_is_missing(monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    monkeypatch.setattr(os, "environ", {} if value is None else {"SETTING": value})
    assert env.hosts("SETTING", default=["a"]) == ["a"]
    assert "is missing" in refusal(lambda: env.redis_url("SETTING"))


def test_secret_is_not_repeated(given: Given) -> None:
    given("hunter2")
    message = refusal(lambda: env.secret("SETTING", shortest=32, example="..."))
    assert "7 characters" in message
    assert "hunter2" not in message


@pytest.mark.parametrize(
    "value", ["localhost", "*", ".example.com, api.example.org", "127.0.0.1,[::1],pod-1_a.internal"]
)
def test_hosts(given: Given, value: str) -> None:
    given(value)
    assert env.hosts("SETTING") == value.replace(" ", "").split(",")


@pytest.mark.parametrize("value", ["https://a.com", "a.com:8000", "a.com,,b.com", "a b", "a.com/", "*.a.com"])
def test_hosts_refused(given: Given, value: str) -> None:
    given(value)
    refusal(lambda: env.hosts("SETTING"))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("postgresql://u:p@h:5433/d", {"USER": "u", "PASSWORD": "p", "HOST": "h", "PORT": "5433"}),
        ("postgres://h/d", {"USER": "", "PASSWORD": "", "HOST": "h", "PORT": ""}),
        ("postgres://u%40x:p%2F%23%25@h/d%20b", {"USER": "u@x", "PASSWORD": "p/#%", "NAME": "d b"}),
        ("postgres://u:a@b@h/d", {"PASSWORD": "a@b", "HOST": "h"}),
        ("postgres://[::1]:1/d", {"HOST": "::1", "PORT": "1"}),
        ("postgresql:///d?host=/run/pg", {"HOST": "/run/pg", "PORT": "", "OPTIONS": {}}),
        ("postgresql://u@/d?host=/run/pg&port=7", {"USER": "u", "HOST": "/run/pg", "PORT": "7"}),
        ("postgres://h/d?sslmode=require&connect_timeout=9", {
            "OPTIONS": {"sslmode": "require", "connect_timeout": "9"}
        }),
    ],
)  # fmt: skip
def test_database_url(given: Given, value: str, expected: dict[str, object]) -> None:
    given(value)
    assert env.database_url("SETTING").items() >= expected.items()


@pytest.mark.parametrize(
    "value",
    [
        "s3cret",
        "mysql://u:s3cret@h/d",
        "postgres://u:s3cret@h",
        "postgres://u:s3cret@/d",
        "postgres://u:s3cret@h/d/e",
        "postgres://u:s3cret@h:port/d",
        "postgres://u:s3cret@h:99999/d",
        "postgres://u:s3/cret@h/d",
        "postgres://u:s3cret#@h/d",
        "postgres://u:s3cret?@h/d",
        "postgres://u:[s3cret@h/d",
        "postgres://u:s3cret%@h/d",
        "postgres://u:s3cret%ff@h/d",
        "postgres://u:s3cret%00@h/d",
        "postgres://u:s3cret@a,b/d",
        "postgres://u:s3cret@h/d?ssl=s3cret",
        "postgres://u:s3cret@h/d?sslmode=s3cret",
        "postgres://u:s3cret@h/d?sslmode=require&sslmode=disable",
        "postgres://u:s3cret@h/d?options=-cstatement_timeout%3D0",
    ],
)
def test_database_url_refused(given: Given, value: str) -> None:
    given(value)
    assert "s3" not in refusal(lambda: env.database_url("SETTING"))


@pytest.mark.parametrize(
    "value",
    [
        "redis://h",
        "redis://u:p%40@h:6379/0",
        "rediss://h/1?ssl_cert_reqs=required",
        "unix:///run/redis.sock?db=2",
    ],
)
def test_redis_url(given: Given, value: str) -> None:
    given(value)
    assert env.redis_url("SETTING") == value


@pytest.mark.parametrize(
    "value",
    [
        "http://:s3cret@h",
        "redis://:s3cret@/0",
        "redis://:s3cret@h/cache",
        "redis://:s3cret@h:x",
        "redis://:s3cret%@h",
        "redis://h?ssl_cert_reqs=none",
        "redis://h?db=x",
        "unix://",
    ],
)
def test_redis_url_refused(given: Given, value: str) -> None:
    given(value)
    assert "s3" not in refusal(lambda: env.redis_url("SETTING"))
