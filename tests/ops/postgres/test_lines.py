"""Lines of a stream that is cut anywhere."""

import csv
import io
import itertools
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ops.postgres.lines import (
    DELIMITER,
    FORBIDDEN,
    MAX_LINE_BYTES,
    CsvLines,
    JsonLines,
    Unreadable,
    header_of,
)


def fed(lines: JsonLines | CsvLines, content: bytes, cuts: list[int]) -> bytes:
    places = sorted({0, len(content), *(cut % (len(content) + 1) for cut in cuts)})
    pieces = [content[start:end] for start, end in itertools.pairwise(places)]
    return b"".join([*map(lines.feed, pieces), lines.end()])


@given(
    st.lists(st.dictionaries(st.text(), st.text() | st.integers())),
    st.lists(st.integers(0, 500)),
    st.booleans(),
)
@settings(max_examples=100, deadline=None)
def test_json_arrives_as_it_was_sent(rows: list[Any], cuts: list[int], is_ascii: bool) -> None:  # noqa: FBT001
    content = "".join(json.dumps(row, ensure_ascii=is_ascii) + "\r\n" for row in rows)
    text = fed(JsonLines(), content.encode("utf-8", "replace"), cuts)
    assert DELIMITER not in text
    read = text.replace(b"\\\\", b"\\").decode()
    assert read == content.encode("utf-8", "replace").decode().replace("\r\n", "\n")


@pytest.mark.parametrize("cuts", [[], [0], [1], [2], [1, 2, 3]])
def test_a_byte_order_mark_is_skipped(cuts: list[int]) -> None:
    assert fed(JsonLines(), b'\xef\xbb\xbf{"a":1}\n\xef\xbb\xbf\n', cuts) == b'{"a":1}\n\xef\xbb\xbf\n'
    assert fed(JsonLines(), b"\xef\xbb", cuts[:1]) == FORBIDDEN
    assert fed(JsonLines(), b"1", cuts[:1]) == b"1"


@pytest.mark.parametrize("cuts", [[], [1, 2, 3, 4, 5, 6, 7]])
def test_bytes_that_mean_something_to_copy(cuts: list[int]) -> None:
    assert fed(JsonLines(), b'{"a\x01":1}\r2\r\n\\.\r', cuts) == b'{"a\x02":1}\x022\n\\\\.\x02'


@given(
    st.lists(st.lists(st.text(alphabet='a",\r\n\\.'), min_size=2, max_size=2)), st.lists(st.integers(0, 500))
)
@settings(max_examples=100, deadline=None)
def test_csv_arrives_as_it_is(rows: list[list[str]], cuts: list[int]) -> None:
    table = io.StringIO()
    csv.writer(table).writerows([["", *row] for row in rows])
    content = table.getvalue().encode()
    if b"\n\\.\r" in content or b"\n\\.\n" in content or b"\r\\." in content:
        return
    assert fed(CsvLines(), content, cuts) == content


def refusal(lines: JsonLines | CsvLines, content: bytes, piece: int) -> tuple[int, str]:
    with pytest.raises(Unreadable) as caught:
        fed(lines, content, [*range(0, len(content), piece)])
    return caught.value.line, caught.value.code


@pytest.mark.parametrize("piece", [1000, MAX_LINE_BYTES, 300_000])
def test_a_line_has_a_bound(piece: int) -> None:
    short, long = b"x" * MAX_LINE_BYTES + b"\n", b"x" * (MAX_LINE_BYTES + 1) + b"\n"
    quoted = b'"' + b"x\n" * (MAX_LINE_BYTES // 2) + b'"\n'
    for size in (1, 5):
        fed(JsonLines(), short * size, [*range(0, size * len(short), piece)])
        fed(CsvLines(), short * size, [*range(0, size * len(short), piece)])
    assert refusal(JsonLines(), b"\n" + short * 2 + long + short, piece) == (4, "too_long")
    assert refusal(JsonLines(), long[:-1], piece) == (1, "too_long")
    assert refusal(CsvLines(), short * 2 + long + short, piece) == (4, "too_long")
    assert refusal(CsvLines(), b'a,"b\nc"\n' * 100 + quoted, piece)[1] == "too_long"
    assert refusal(CsvLines(), b'a,"' + b"\n" * 2 * MAX_LINE_BYTES, piece)[1] == "too_long"
    fed(CsvLines(), b'a,"' + b"\n" * 50_000 + b'"\n' + b'a,"' + b"\n" * 50_000 + b'"\n', [piece])


@pytest.mark.parametrize("content", [b"\\.\n", b"a,b\n\\.\nc", b"a\r\n\\.\r\n", b'"a\n\\.\n"', b"a\n\\."])
@pytest.mark.parametrize("piece", [1, 2, 100])
def test_the_end_that_copy_knows_in_csv(content: bytes, piece: int) -> None:
    """Before Postgres 18, it would end the rows without a word."""
    assert refusal(CsvLines(), content, piece)[1] == "malformed"
    fed(CsvLines(), b"a\\.\n\\.b\n.\\\n\\\\.\n", [*range(0, 100, piece)])


def test_headers() -> None:
    assert header_of(b"a,b") == header_of(b'\xef\xbb\xbf"a",b\r') == ["a", "b"]
    for line in (b"", b"\xff", b'a,"b', b'"a"b'):
        with pytest.raises(Unreadable):
            header_of(line)
