"""Each reader returns its type, or stops with one line that names the variable and never a secret."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from django.test import override_settings
from hypothesis import example
from hypothesis import given as given_examples
from hypothesis import strategies as st

from config import env
from ops.asgi.hosts import _is_allowed, are_allowed
from ops.redis.rates import RateLimit

HOST_LIKE = r"\.?[A-Za-z0-9_.-]{1,70}"


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


@pytest.mark.parametrize(
    ("value", "expected"), [("", False), ("On", True), ("no", False), ("Prepared", "prepared")]
)
def test_switch(given: Given, value: str, expected: object) -> None:
    given(value)
    assert env.switch("SETTING", ["prepared"], default=False) == expected
    given("transaction")
    assert "false, true, prepared" in refusal(lambda: env.switch("SETTING", ["prepared"], default=False))


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


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("100/s", RateLimit(100, 1)),
        ("600/m", RateLimit(600, 60)),
        ("1/h", RateLimit(1, 3600)),
        ("off", None),
        ("OFF", None),
        ("", RateLimit(5, 60)),
    ],
)
def test_rate(given: Given, value: str, expected: RateLimit | None) -> None:
    given(value)
    assert env.rate("SETTING", default="5/m") == expected


@pytest.mark.parametrize("value", ["100", "0/s", "100/d", "100/1s", "1.5/s", "9999999999/s", "s/100", "none"])
def test_rate_refused(given: Given, value: str) -> None:
    given(value)
    assert "neither a number" in refusal(lambda: env.rate("SETTING", default="off"))


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


@pytest.mark.parametrize("value", ['"abc"', "'abc'", '""', "\udce9t\udce9"], ids=ascii)
def test_what_no_variable_means(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """Docker keeps the quotes in a file for --env-file; what is not UTF-8 could not be signed with or sent."""
    monkeypatch.setattr(os, "environ", {"SETTING": value})
    said = refusal(lambda: env.secret("SETTING", shortest=1, example="..."))
    assert "quotes" in said or "UTF-8" in said
    assert "abc" not in said


@pytest.mark.parametrize(
    ("value", "expected"),
    [("192.0.2.1", "192.0.2.1"), ("[::1]", "::1"), ("::", "::"), ("localhost", "localhost")],
)
def test_address(given: Given, value: str, expected: str) -> None:
    given(value)
    assert env.address("SETTING", default="127.0.0.1") == expected
    given(f"http://{value}")
    refusal(lambda: env.address("SETTING", default="127.0.0.1"))


def test_secret_is_not_repeated(given: Given) -> None:
    given("hunter2")
    message = refusal(lambda: env.secret("SETTING", shortest=32, example="..."))
    assert "7 characters" in message
    assert "hunter2" not in message


def test_secrets(given: Given) -> None:
    given(" hunter2 ,hunter22")
    assert env.secrets("SETTING", shortest=7, example="...") == ["hunter2", "hunter22"]
    for wrong in ("hunter2,hunter22", "hunter22,", ",hunter22"):
        given(wrong)
        message = refusal(lambda: env.secrets("SETTING", shortest=8, example="..."))
        assert "fewer than 8" in message
        assert "hunter" not in message
    given("")
    assert env.secrets("SETTING", shortest=8, example="...") == []


@pytest.mark.parametrize(
    "value", ["localhost", "*", ".example.com, api.example.org", "127.0.0.1,[::1],pod-1.internal"]
)
def test_hosts(given: Given, value: str) -> None:
    given(value)
    assert env.hosts("SETTING") == value.replace(" ", "").split(",")


@pytest.mark.parametrize("value", ["https://a.com", "a.com:8000", "a.com,,b.com", "a b", "a.com/", "*.a.com"])
def test_hosts_refused(given: Given, value: str) -> None:
    given(value)
    refusal(lambda: env.hosts("SETTING"))


@pytest.mark.parametrize(
    "value",
    ["my_api", "_.a.com", "a.com.", "a..com", ".", "-", "::1", "[:::]", "[1.2.3.4]", "bücher.de", "a" * 64],
)
def test_hosts_that_no_request_could_match(given: Given, value: str) -> None:
    given(value)
    assert repr(value) in refusal(lambda: env.hosts("SETTING"))


@given_examples(entry=st.from_regex(HOST_LIKE, fullmatch=True) | st.ip_addresses(v=6).map("[{}]".format))
@example("*")
@example(".example.com")
@example("LOCALHOST")
@example("my_api")
@example("example.com.")
@example("[::FFFF:192.0.2.1]")
def test_what_hosts_takes_the_service_answers_to(entry: str) -> None:
    """The reader, Django and the layer AllowedHosts agree."""
    with pytest.MonkeyPatch.context() as patch, override_settings(ALLOWED_HOSTS=[entry]):
        patch.setenv("SETTING", entry)
        try:
            assert env.hosts("SETTING") == [entry]
        except env.ConfigurationError:
            return
        named = f"sub{entry}" if entry[0] == "." else "any.example" if entry == "*" else entry
        spellings = [named, named.upper(), f"{named}:8000", entry.lstrip(".*") or named]
        if not named.startswith("["):
            spellings.append(f"{named}.")
        for host in spellings:
            _is_allowed.cache_clear()
            assert are_allowed([(b"host", host.encode())]), host


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("postgresql://u:p@h:5433/d", {"USER": "u", "PASSWORD": "p", "HOST": "h", "PORT": "5433"}),
        ("postgres://h/d", {"USER": "", "PASSWORD": "", "HOST": "h", "PORT": ""}),
        ("postgres://u%40x:p%2F%23%25@h/d%20b", {"USER": "u@x", "PASSWORD": "p/#%", "NAME": "d b"}),
        ("postgres://u:a@b@h/d", {"PASSWORD": "a@b", "HOST": "h"}),
        ("postgres://[::1]:1/d", {"HOST": "::1", "PORT": "1"}),
        ("postgres://[::1],[2001:db8::1]:2/d", {"HOST": "::1,2001:db8::1", "PORT": ",2"}),
        ("postgres://u:p@a:5432,b:5433/d?target_session_attrs=read-write", {
            "HOST": "a,b", "PORT": "5432,5433", "USER": "u", "NAME": "d",
            "OPTIONS": {"target_session_attrs": "read-write"},
        }),
        ("postgres://a,b/d", {"HOST": "a,b", "PORT": ""}),
        ("postgres:///d?host=a,/run/pg&port=7", {"HOST": "a,/run/pg", "PORT": "7"}),
        ("postgres:///d?host=/run/a,/run/b&port=7,8", {"HOST": "/run/a,/run/b", "PORT": "7,8"}),
        ("postgres://%2Frun%2Fpg/d", {"HOST": "/run/pg", "PORT": ""}),
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
        "postgres://u:s3cret@a,,b/d",
        "postgres://u:s3cret@a:1,b:x/d",
        "postgres://u:s3cret@a:0/d",
        "postgres://u:s3cret@a/d?port=70000",
        "postgres://u:s3cret@/d?host=a,b,c&port=1,2",
        "postgres://u:s3cret@a/d?sslrootcert=/nowhere/s3cret",
        "postgresql:/d?host=/run/pg&user=s3cret",
        "host=h dbname=d password=s3cret",
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
        "redis://:p%2Fw%23%25@[::1]:6379/1",
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
        "rediss://h?ssl_ca_certs=/nowhere/s3cret",
        "redis://:s3cret@h:0",
        "redis://:s3cret@h:99999",
        "redis://:s3cret@a,b",
        "redis+sentinel://:s3cret@h/main",
        "REDIS://h",
        "unix:/run/redis.sock",
        "unix://run/redis.sock",
        "redis://h?db=x",
        "unix://",
    ],
)
def test_redis_url_refused(given: Given, value: str) -> None:
    given(value)
    assert "s3" not in refusal(lambda: env.redis_url("SETTING"))


@pytest.mark.parametrize(
    "value", ["http://rates:8080/rates.json", "https://r.example.com/v1?key=k%20&base=USD", "http://[::1]:80"]
)
def test_http_url(given: Given, value: str) -> None:
    given(value)
    assert env.http_url("SETTING") == value


@pytest.mark.parametrize(
    "value",
    [
        *("rates", "ftp://h/s3cret", "HTTP://h/s3cret", "http://", "http:///s3cret", "http://a,b/s3cret"),
        *("http://user:s3cret@h", "http://h:0/s3cret", "http://h:99999/s3cret", "http://h:x/s3cret"),
        *("http://h/s3cret#a", "http://h/a s3cret", "http://h/s3crét", "http://h_h$/s3cret"),
    ],
)
def test_http_url_refused(given: Given, value: str) -> None:
    given(value)
    assert "s3c" not in refusal(lambda: env.http_url("SETTING")).partition("Example")[0]


def test_origins(given: Given) -> None:
    """As browsers spell them, or none would ever be found."""
    given("https://app.example.com, http://[::1]:8443,chrome-extension://abc")
    assert env.origins("SETTING") == [
        "https://app.example.com",
        "http://[::1]:8443",
        "chrome-extension://abc",
    ]
    for value in ("https://a.example:443", "http://a.example:80", "https://a.example/", "a.example", "null"):
        given(value)
        assert "which is not an origin" in refusal(lambda: env.origins("SETTING"))


# --- Secrets from files ---------------------------------------------------------------------------

READERS: dict[str, tuple[Callable[[], object], str]] = {
    "secret": (lambda: env.secret("SETTING", shortest=8, example="..."), "hunter2-hunter2"),
    "secrets": (lambda: env.secrets("SETTING", shortest=8, example="..."), "hunter2-a,hunter2-b"),
    "database": (lambda: env.database_url("SETTING"), "postgresql://u:hunter2@h/d"),
    "redis": (lambda: env.redis_url("SETTING"), "redis://:hunter2@h"),
    "http": (lambda: env.http_url("SETTING"), "https://h/?key=hunter2"),
}


@pytest.fixture
def secret_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SETTING_FILE", str(tmp_path / "hunter2"))
    return tmp_path / "hunter2"


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_a_secret_in_a_file_is_as_in_its_variable(
    given: Given, secret_file: Path, monkeypatch: pytest.MonkeyPatch, reader: str, end: str
) -> None:
    read, value = READERS[reader]
    secret_file.write_bytes(f"{value}{end}".encode())
    of_file = read()
    monkeypatch.delenv("SETTING_FILE")
    given(value)
    assert read() == of_file


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"\n", "SETTING is missing: the file is empty."),
        (b"hunter2" * 10_000, "SETTING cannot be read: the file has more than 65536 bytes."),
        (b"hunter2\xff", "SETTING is not UTF-8."),
        (b"'hunter2'\n", "SETTING is in quotes"),
        (None, "SETTING cannot be read: there is no such file."),
    ],
)
def test_a_file_without_a_secret_is_one_line(
    secret_file: Path, reader: str, content: bytes | None, problem: str
) -> None:
    if content is not None:
        secret_file.write_bytes(content)
    with pytest.raises(env.ConfigurationError) as stopped:
        READERS[reader][0]()
    message = str(stopped.value)
    assert message.startswith(problem)
    assert message.endswith("It is read from the file that SETTING_FILE names")
    assert "\n" not in message
    assert "hunter2" not in message


def test_a_bad_secret_in_a_file_is_not_repeated(secret_file: Path) -> None:
    secret_file.write_text("hunter2")
    with pytest.raises(env.ConfigurationError, match="has 7 characters, fewer than 8") as stopped:
        READERS["secret"][0]()
    assert "hunter2" not in str(stopped.value)


def test_a_directory_and_a_pipe_hold_no_secret(secret_file: Path) -> None:
    """To open a pipe that nobody writes into would take for ever."""
    for make in (os.mkfifo, os.mkdir):
        make(secret_file)
        with pytest.raises(env.ConfigurationError, match="there is no such file"):
            READERS["secret"][0]()
        secret_file.rename(secret_file.with_name(make.__name__))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_of_somebody_else(secret_file: Path) -> None:
    secret_file.touch(mode=0o000)
    with pytest.raises(env.ConfigurationError, match="cannot be read: Permission denied"):
        READERS["secret"][0]()


def test_both_are_refused(given: Given, secret_file: Path) -> None:
    given("hunter2-hunter2")
    with pytest.raises(
        env.ConfigurationError, match=r"^SETTING and SETTING_FILE are both set: unset one of them$"
    ):
        READERS["secret"][0]()


def test_an_empty_name_counts_as_missing(given: Given, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SETTING_FILE", "")
    given("hunter2-hunter2")
    assert READERS["secret"][0]() == "hunter2-hunter2"
