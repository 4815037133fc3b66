"""A stream cut anywhere, as COPY takes it: bounded lines, and no byte with a meaning that its sender does not know.

Pieces are looked at as a whole, by searches in C: a line costs no Python of its own.
"""

import csv
from collections.abc import Iterator

MAX_LINE_BYTES = 64 * 1024  # of a line of JSON, or a record of CSV, which may have line breaks
DELIMITER = b"\x01"  # of the columns of NDJSON's COPY, which has one
# In the place of characters that would end a column or a line for COPY: no JSON has it, so the line is refused.
FORBIDDEN = b"\x02"
MARK = b"\xef\xbb\xbf"  # of the byte order, with which spreadsheets begin a file
END = b"\\."  # a line that ends a COPY of CSV before Postgres 18, whatever comes after it


class Unreadable(Exception):
    """A line that ends the reading: what comes after it cannot be told apart, or shall not."""

    def __init__(self, line: int, code: str, detail: str) -> None:
        super().__init__(f"line {line} {detail}")
        self.line, self.code, self.detail = line, code, detail


class JsonLines:
    r"""NDJSON as a text column: `COPY ... (FORMAT text, DELIMITER '\x01')`, where a backslash is written as two."""

    def __init__(self) -> None:
        self._line = 1  # that is being read
        self._size = 0  # bytes of it so far
        self._held = b""  # a carriage return, of which the line feed may follow
        self._begun: bytes | None = b""  # maybe a part of the byte order mark; None once it was looked for

    def feed(self, piece: bytes) -> bytes:
        """Raises Unreadable for a line that is too long."""
        if self._begun is not None:
            piece = self._begun + piece
            if len(piece) < len(MARK) and MARK.startswith(piece):
                self._begun = piece
                return b""
            self._begun, piece = None, piece.removeprefix(MARK)
        for window in _windows(piece):
            ends = window.count(b"\n")
            if ends:
                self._bound(window.index(b"\n"))
                self._line, self._size = self._line + ends, len(window) - window.rindex(b"\n") - 1
            else:
                self._bound(len(window))
                self._size += len(window)
        if self._held or b"\r" in piece:
            piece = self._held + piece
            self._held = b"\r" if piece.endswith(b"\r") else b""
            piece = piece.removesuffix(self._held).replace(b"\r\n", b"\n").replace(b"\r", FORBIDDEN)
        return piece.replace(DELIMITER, FORBIDDEN).replace(b"\\", b"\\\\")

    def end(self) -> bytes:
        return FORBIDDEN if self._held or self._begun else b""

    def _bound(self, size: int) -> None:
        if self._size + size > MAX_LINE_BYTES:
            raise _too_long(self._line)


class CsvLines:
    """CSV (RFC 4180) after its header: `COPY ... (FORMAT csv)`. A line break within quotes ends no record."""

    def __init__(self) -> None:
        self._line = 2
        self._size = 0  # bytes of the record so far
        self._is_quoted = False
        self._tail = b"\n"  # the end of what has come, in which END may begin

    def feed(self, piece: bytes) -> bytes:
        """Raises Unreadable for a record that is too long, and for END, before COPY would take it for the end."""
        for window in _windows(piece):
            seen = self._tail + window
            if END in seen:
                self._refuse_end(seen)
            self._tail = seen[-len(END) - 2 :]
            first, last = self._ends(window)
            if self._size + (len(window) if first is None else first) > MAX_LINE_BYTES:
                raise _too_long(self._line)
            self._size = self._size + len(window) if last is None else len(window) - last - 1
            self._line += window.count(b"\n")
            self._is_quoted ^= window.count(b'"') % 2 == 1
        return piece

    def end(self) -> bytes:
        """Raises Unreadable for END without a line break."""
        self._refuse_end(self._tail + b"\n")
        return b""

    def _ends(self, window: bytes) -> tuple[int | None, int | None]:
        """Where the first and the last record end, of those that end in the window: at a line break out of quotes."""
        is_quoted, at, first = self._is_quoted, 0, None
        while (end := window.find(b"\n", at)) >= 0:
            is_quoted ^= window.count(b'"', at, end) % 2 == 1
            at = end + 1
            if not is_quoted:
                first = end
                break
        is_quoted, at, last = self._is_quoted ^ (window.count(b'"') % 2 == 1), len(window), None
        while first is not None and (end := window.rfind(b"\n", 0, at)) >= 0:
            is_quoted ^= window.count(b'"', end, at) % 2 == 1
            at = end
            if not is_quoted:
                last = end
                break
        return first, last

    def _refuse_end(self, seen: bytes) -> None:
        for before in (b"\n", b"\r"):
            for after in (b"\n", b"\r"):
                if (at := seen.find(before + END + after)) >= 0:
                    line = self._line + seen.count(b"\n", 0, at + 1) - self._tail.count(b"\n")
                    raise Unreadable(line, "malformed", "is a backslash and a full stop, unquoted")


def header_of(line: bytes) -> list[str]:
    """The names of a CSV's first line. Raises Unreadable."""
    try:
        text = line.removeprefix(MARK).decode()
        names = next(csv.reader([text.rstrip("\r\n")], strict=True))
    except UnicodeDecodeError:
        raise Unreadable(1, "encoding", "is not UTF-8") from None
    except csv.Error:
        names = []
    if not names:
        raise Unreadable(1, "malformed", "has not the names of the fields, separated by commas")
    return names


def _windows(piece: bytes) -> Iterator[bytes]:
    """Parts no longer than a line may be: a whole line in one is short enough."""
    if len(piece) <= MAX_LINE_BYTES:
        yield piece
        return
    for start in range(0, len(piece), MAX_LINE_BYTES):
        yield piece[start : start + MAX_LINE_BYTES]


def _too_long(line: int) -> Unreadable:
    return Unreadable(line, "too_long", f"has more than {MAX_LINE_BYTES} bytes")
