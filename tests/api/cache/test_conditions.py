"""Which requests a shared page may answer, and when the answer is 304 (RFC 9110, section 13)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.cache.conditions import (
    UNCONDITIONAL,
    Conditions,
    Rare,
    conditions_of,
    fails_precondition,
    http_date,
    is_unchanged,
)

ETAG = b'"abc-gzip"'
MODIFIED = 1577880000  # Wed, 01 Jan 2020 12:00:00 GMT


@pytest.mark.parametrize(
    ("listed", "unchanged"),
    [
        ('"abc-gzip"', True),
        ('W/"abc-gzip"', True),
        ("*", True),
        (" * ", True),
        ('"x", "abc-gzip"', True),
        ('"x","abc-gzip","y"', True),
        (', ,"x" ,\tW/"abc-gzip"', True),
        ('"a,b", "abc-gzip"', True),
        ('"W/", "abc-gzip"', True),
        ('"abc"', False),
        ('"abc-zstd"', False),
        ("abc-gzip", False),
        ('"abc-gzip', False),
        ('"ABC-GZIP"', False),
        ('"x,abc-gzip"', False),
        ('"a"abc-gzip"b"', False),
        ('"*"', False),
        ('"x", *', False),
        ('""', False),
        ("garbage", False),
        ("\xff", False),
    ],
)
def test_if_none_match(listed: str, unchanged: bool) -> None:  # noqa: FBT001
    conditions = Conditions(if_none_match=listed.encode("latin-1"))
    assert is_unchanged(conditions, ETAG, None) is unchanged


@pytest.mark.parametrize(
    ("since", "unchanged"),
    [
        ("Wed, 01 Jan 2020 12:00:00 GMT", True),
        ("Wed, 01 Jan 2020 12:00:01 GMT", True),
        ("Fri, 31 Dec 9999 23:59:59 GMT", True),
        ("Wednesday, 01-Jan-20 12:00:00 GMT", True),
        ("Wed Jan  1 12:00:00 2020", True),
        ("Wed, 01 Jan 2020 11:59:59 GMT", False),
        ("yesterday", False),
        ("1 Jan 2020 12:00:00", False),
        ("Wed, 01 Jan 2020 12:00:00 -0000", False),
        ("Wed, 01 Jan 2020 12:00:00 GMT, Wed, 01 Jan 2020 12:00:00 GMT", False),
        ("Wed, 99 Jan 2020 12:00:00 GMT", False),
        ("Wed, 01 Jan 2020 12:00:00 +99999999999", False),
        ("\xff", False),
    ],
)
def test_if_modified_since(since: str, unchanged: bool) -> None:  # noqa: FBT001
    conditions = Conditions(if_modified_since=since.encode("latin-1"))
    assert is_unchanged(conditions, ETAG, MODIFIED) is unchanged
    assert not is_unchanged(conditions, ETAG, None)


def test_if_none_match_overrides_if_modified_since() -> None:
    late = b"Fri, 31 Dec 9999 23:59:59 GMT"
    assert not is_unchanged(Conditions(b"", b'"other"', late), ETAG, MODIFIED)
    assert is_unchanged(Conditions(b"", ETAG, b"Wed, 01 Jan 1997 12:00:00 GMT"), ETAG, MODIFIED)


@given(st.binary(max_size=100))
def test_any_date_is_a_date_or_none(text: bytes) -> None:
    assert http_date(text) is None or isinstance(http_date(text), int)


@given(st.text("0123456789 :,+-GMTWedJan\t", max_size=60))
def test_any_almost_date_too(text: str) -> None:
    assert http_date(text.encode()) is None or isinstance(http_date(text.encode()), int)


@given(st.binary(max_size=100))
def test_any_list_is_read(listed: bytes) -> None:
    assert is_unchanged(Conditions(if_none_match=listed), ETAG, None) in {True, False}


def test_nothing_said() -> None:
    assert conditions_of([]) is UNCONDITIONAL
    assert conditions_of([(b"host", b"a"), (b"cookie", b"b"), (b"user-agent", b"c")]) is UNCONDITIONAL


@pytest.mark.parametrize("length", [b"0", b"00"])
def test_no_content_is_no_content(length: bytes) -> None:
    assert conditions_of([(b"accept-encoding", b"gzip"), (b"content-length", length)]) == Conditions(b"gzip")


@pytest.mark.parametrize(
    "field", [(b"authorization", b"Bearer x"), (b"authorization", b""), (b"x-api-key", b"x")]
)
def test_credentials(field: tuple[bytes, bytes]) -> None:
    assert conditions_of([(b"host", b"a"), (b"accept-encoding", b"gzip"), field]) == Conditions(
        b"gzip", rare=Rare(has_credentials=True)
    )


@pytest.mark.parametrize(
    ("listed", "failed"),
    [
        ('"abc-gzip"', False),
        ("*", False),
        (" * ", False),
        ('"x", "abc-gzip"', False),
        (', ,"x" ,\t"abc-gzip"', False),
        ('W/"x", "abc-gzip"', False),
        ('W/"abc-gzip"', True),  # the comparison is strong
        ('"abc"', True),
        ('"abc-zstd"', True),
        ("abc-gzip", True),
        ('"x", *', True),
        ("garbage", True),
    ],
)
def test_if_match(listed: str, failed: bool) -> None:  # noqa: FBT001
    wanted = Rare(if_match=listed.encode("latin-1"))
    assert fails_precondition(wanted, ETAG, None) is failed
    wanted.if_unmodified_since = b"Wed, 01 Jan 1997 12:00:00 GMT"  # which it overrides
    assert fails_precondition(wanted, ETAG, MODIFIED) is failed


@pytest.mark.parametrize(
    ("since", "failed"),
    [
        ("Wed, 01 Jan 2020 12:00:00 GMT", False),
        ("Fri, 31 Dec 9999 23:59:59 GMT", False),
        ("Wed, 01 Jan 2020 11:59:59 GMT", True),
        ("yesterday", False),
        ("", False),
    ],
)
def test_if_unmodified_since(since: str, failed: bool) -> None:  # noqa: FBT001
    wanted = Rare(if_unmodified_since=since.encode())
    assert fails_precondition(wanted, ETAG, MODIFIED) is failed
    assert not fails_precondition(wanted, ETAG, None)


def test_lists_on_several_lines() -> None:
    lines = [(b"if-none-match", b'"a"'), (b"accept-encoding", b"gzip"), (b"host", b"x")]
    lines += [(b"if-none-match", b'"b"'), (b"accept-encoding", b"br"), (b"if-modified-since", b"then")]
    assert conditions_of(lines) == Conditions(b"gzip, br", b'"a", "b"', b"then")


@pytest.mark.parametrize(
    "field",
    [
        (b"content-length", b"5"),
        (b"content-length", b"10"),
        (b"transfer-encoding", b"chunked"),
        (b"expect", b"100-continue"),
    ],
)
def test_requests_that_no_shared_page_answers(field: tuple[bytes, bytes]) -> None:
    assert conditions_of([(b"host", b"a"), (b"accept-encoding", b"gzip"), field]) is None
