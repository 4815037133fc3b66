"""Lines of a stream that is cut anywhere."""

import copy
import csv
import io
import itertools
import json
import re
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from django.conf import settings as django_settings
from hypothesis import given, settings
from hypothesis import strategies as st

from ops.postgres.lines import DELIMITER, MAX_LINE_BYTES, CsvLines, JsonLines, Lines, Unreadable, header_of
from tests.spare import Database


def fed(lines: Lines, content: bytes, cuts: list[int]) -> bytes:
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
    assert fed(JsonLines(), b"1", cuts[:1]) == b"1\n"


@pytest.mark.parametrize("cuts", [[], [1, 2, 3, 4, 5, 6, 7]])
def test_bytes_that_mean_something_to_copy(cuts: list[int]) -> None:
    assert fed(JsonLines(), b'{"a\x01":1}\r2\r\n\\.\r', cuts) == b'{"a\x02":1}\x022\n\\\\.\n'


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
    assert fed(CsvLines(3), content, cuts) == content


@given(st.text(alphabet='a",\r\n\\.'), st.lists(st.integers(0, 500)))
@settings(max_examples=300, deadline=None)
def test_copy_reads_all_that_is_taken_and_refuses_the_rest(
    postgres: "psycopg.Connection[Any]", content: str, cuts: list[int]
) -> None:
    lines = CsvLines(2)
    taken = fed(lines, content.encode(), cuts)

    def copied(text: bytes) -> int:
        with postgres.transaction(), postgres.cursor() as cursor:
            with cursor.copy("COPY cells FROM STDIN (FORMAT csv)") as pieces:
                pieces.write(text)
            return cursor.rowcount

    assert copied(taken) == len(lines.line.findall(taken))
    # COPY may take a carriage return alone for the end of a line, and may take END.
    if lines.broken and not re.search(r"(^|[\r\n])\\\.|\r(?!\n)", content):
        with pytest.raises(psycopg.Error):
            copied(content.encode())


@pytest.fixture(scope="module")
def postgres(django_db_setup: None) -> Iterator["psycopg.Connection[Any]"]:
    with Database(str(django_settings.DATABASES["default"]["NAME"])).connect() as connection:
        connection.execute("CREATE TEMP TABLE cells (one text, other text)")
        yield connection


def refusal(lines: Lines, content: bytes, piece: int) -> tuple[int, str]:
    """The first line that is not taken, and why."""
    taken = fed(lines, content, [*range(0, len(content), piece)])
    assert lines.broken
    assert lines.feed(b"x\n") == lines.end() == b""
    return len(lines.line.findall(taken)) + 1, lines.broken[0]


@pytest.mark.parametrize("piece", [1000, MAX_LINE_BYTES, 300_000])
def test_a_line_has_a_bound(piece: int) -> None:
    short, long = b"x" * MAX_LINE_BYTES + b"\n", b"x" * (MAX_LINE_BYTES + 1) + b"\n"
    quoted = b'"' + b"x\n" * (MAX_LINE_BYTES // 2) + b'"\n'
    for size in (1, 5):
        for lines in (JsonLines(), CsvLines(1)):
            assert fed(lines, short * size, [*range(0, size * len(short), piece)]) == short * size
    assert refusal(JsonLines(), b"\n" + short * 2 + long + short, piece) == (4, "too_long")
    assert refusal(JsonLines(), long[:-1], piece) == (1, "too_long")
    assert refusal(CsvLines(1), short * 2 + long + short, piece) == (3, "too_long")
    assert refusal(CsvLines(2), b'a,"b\nc"\n' * 100 + b"a," + quoted, piece) == (101, "too_long")
    assert refusal(CsvLines(2), b'a,"' + b"\n" * 2 * MAX_LINE_BYTES, piece) == (1, "too_long")
    breaks = b'a,"' + b"\n" * 50_000 + b'"\n' + b'a,"' + b"\n" * 50_000 + b'"\n'
    assert fed(CsvLines(2), breaks, [piece]) == breaks


@pytest.mark.parametrize("content", [b"\\.\n", b"a,b\n\\.\nc", b"a\r\n\\.\r\n", b'"a\n\\.\n"', b"a\n\\."])
@pytest.mark.parametrize("piece", [1, 2, 100])
def test_the_end_that_copy_knows_in_csv(content: bytes, piece: int) -> None:
    """Before Postgres 18, it would end the rows without a word."""
    assert refusal(CsvLines(2 if b"," in content else 1), content, piece)[1] == "malformed"
    others = b"a\\.\n\\.b\n.\\\n\\\\.\n"
    assert fed(CsvLines(1), others, [*range(0, 100, piece)]) == others


BROKEN: list[tuple[Lines, bytes, int, str]] = [
    (CsvLines(2), b"a,b\nc\nd,e\n", 2, "has another number of cells"),
    (CsvLines(2), b"a,b\nc,d,e\n", 2, "has another number of cells"),
    (CsvLines(2), b"a,b\n\n", 2, "has another number of cells"),
    (CsvLines(2), b"a,b\nc\nd,e,f\n", 2, "has another number of cells"),
    (CsvLines(2), b'a,"b\n"\nc,"d\ne,f\n', 2, "has a quote that is not closed"),
    (CsvLines(2), b'a,b\nc,"d\ne,"f"\ng,"h"\n', 2, "has a quote that is not closed"),
    (CsvLines(2), b"a,b\nc,d\r\ne,f\n", 2, "has another end than the lines before it"),
    (CsvLines(2), b"a,b\r\nc,d\n", 2, "has another end than the lines before it"),
    (CsvLines(2), b"a,b\nc,d\re\n", 2, "has another end than the lines before it"),
    (CsvLines(2), b"a,b\r\nc,d\re\n", 2, "has another end than the lines before it"),
    (CsvLines(2), b'a,"\xc3\xa9\n"\nb,\xc3\nc,d\n', 2, "is not UTF-8"),
    (CsvLines(2), b"a,b\nc,\0\n", 2, "is not UTF-8, or has a NUL"),
    (JsonLines(), b"{}\n\xed\xa0\x80\n{}\n", 2, "is not UTF-8"),
    (JsonLines(), b"{}\n[]\n\xef\xbb", 3, "is not UTF-8"),
]


@pytest.mark.parametrize(("lines", "content", "line", "fault"), BROKEN, ids=lambda value: str(value)[:30])
@pytest.mark.parametrize("piece", [1, 7, 100])
def test_the_lines_before_a_broken_one_are_taken(
    lines: Lines, content: bytes, line: int, fault: str, piece: int
) -> None:
    lines = copy.deepcopy(lines)
    assert refusal(lines, content, piece)[0] == line
    assert lines.broken
    assert lines.broken[1].startswith(fault)


def test_the_last_line_of_csv_ends_as_the_others() -> None:
    for content in (b"a,b\nc,d", b"a,b\r\nc,d", b"a,b\r\nc,d\r", b"a,b", b'a,"\r\n"'):
        assert fed(lines := CsvLines(2), content, []) == content.removesuffix(b"\r") + lines.newline


def test_headers() -> None:
    assert header_of(b"a,b") == header_of(b'\xef\xbb\xbf"a",b\r') == ["a", "b"]
    for line in (b"", b"\xff", b'a,"b', b'"a"b'):
        with pytest.raises(Unreadable):
            header_of(line)
