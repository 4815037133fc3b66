"""Makes whole lines for COPY of a stream that is cut anywhere. Bytes that COPY would act on are escaped or replaced.

COPY forgets all of its lines at the first one that it cannot read. So no unreadable line is passed on, and the lines
before it stay, so that their faults can be named. Many lines are looked at together, by searches in C: a sound line
takes no Python code of its own.
"""

import csv
import re
from abc import ABC, abstractmethod

MAX_LINE_BYTES = 64 * 1024  # of a line of JSON, or a record of CSV, which may have line breaks
DELIMITER = b"\x01"  # between columns in NDJSON's COPY, which has only one column
# Replaces bytes that would end a column or a line for COPY. JSON never has a raw \x02, so the conversion in Postgres
# (staging.py) refuses the line.
FORBIDDEN = b"\x02"
MARK = b"\xef\xbb\xbf"  # the byte order mark, with which spreadsheets begin a file
END = b"\\."  # alone in a line, it ends a COPY of CSV before Postgres 18, even if lines follow
END_ALONE = re.compile(rb"(?:^|[\r\n])\\\.[\r\n]")
# all bytes but quotes, ends of cells and records, and NUL
NO_SHAPE = bytes(set(range(256)) - set(b'",\r\n\0'))

# The faults of a line that COPY cannot read, as code and detail.
ENCODING = "encoding", "is not UTF-8, or has a NUL"
CELLS = "malformed", "has another number of cells than the first line, or a quote that is not closed"
OPEN_QUOTE = "malformed", "has a quote that is not closed"
ENDS = "malformed", "has another end than the lines before it, or a carriage return that is not quoted"
TOO_LONG = "too_long", f"has more than {MAX_LINE_BYTES} bytes"
TOO_LONG_QUOTE = "too_long", f"has more than {MAX_LINE_BYTES} bytes, or a quote that is not closed"


class Unreadable(Exception):
    """A line that ends the reading. The lines after it are not looked at, even if they could be told apart."""

    def __init__(self, line: int, code: str, detail: str) -> None:
        super().__init__(f"line {line} {detail}")
        self.line, self.code, self.detail = line, code, detail


class Lines(ABC):
    """Gives the lines of a stream as soon as they are whole, up to the first one that is broken."""

    line: re.Pattern[bytes]
    newline = b"\n"

    def __init__(self) -> None:
        self.broken: tuple[str, str] | None = None  # the fault of the line after those taken
        self._rest = b""  # of a line that has not ended yet

    def feed(self, piece: bytes) -> bytes:
        """Return the lines that end in the piece, for COPY, up to the first broken one."""
        taken, at = [], 0
        while at < len(piece) and not self.broken:
            # Short enough that no line which ends in it is too long.
            window = piece[at : at + MAX_LINE_BYTES + 1 - len(self._rest)]
            at += len(window)
            if end := self._end(window):
                taken.append(self._take(self._rest + window[:end]))
                self._rest = window[end:]
            else:
                self._rest += window
                if len(self._rest) > MAX_LINE_BYTES:
                    self.broken = self._too_long()
        return b"".join(taken)

    def end(self) -> bytes:
        """Return the last line, if the stream has ended in the middle of one, with an end added."""
        if self.broken or not self._rest:
            return b""
        return self._take(self._rest.removesuffix(b"\r") + self.newline)

    def _take(self, lines: bytes) -> bytes:
        """Return whole lines, for COPY, up to the first broken one, and set `broken` to the fault of that line."""
        if self._fault(lines):
            good = 0
            for line in self.line.findall(lines):
                if fault := self._fault(line):
                    self.broken = fault
                    break
                good += len(line)
            lines = lines[:good]
        return self._text(lines)

    @abstractmethod
    def _end(self, window: bytes) -> int:
        """Return the position after the last whole line in `window`, or 0. Called once for each window, in order."""

    @abstractmethod
    def _fault(self, lines: bytes) -> tuple[str, str] | None:
        """Return the fault of a line, or None. For several lines, the result only tells whether any has a fault."""

    def _text(self, lines: bytes) -> bytes:
        """Return sound lines as COPY gets them."""
        return lines

    def _too_long(self) -> tuple[str, str]:
        return TOO_LONG


class JsonLines(Lines):
    r"""NDJSON as one text column: `COPY ... (FORMAT text, DELIMITER '\x01')`, in which a backslash is doubled."""

    line = re.compile(rb"[^\n]*\n")
    _mark = MARK  # empty once the stream's beginning was searched for it

    def _end(self, window: bytes) -> int:
        return window.rfind(b"\n") + 1

    def _fault(self, lines: bytes) -> tuple[str, str] | None:
        return None if _is_text(lines) else ENCODING

    def _text(self, lines: bytes) -> bytes:
        lines, self._mark = lines.removeprefix(self._mark), b""
        if b"\r" in lines:
            lines = lines.replace(b"\r\n", b"\n").replace(b"\r", FORBIDDEN)
        return lines.replace(DELIMITER, FORBIDDEN).replace(b"\\", b"\\\\")


class CsvLines(Lines):
    """CSV (RFC 4180) after its header: `COPY ... (FORMAT csv)`. A line break within quotes ends no record."""

    line = re.compile(rb'(?:[^"\n]++|"[^"]*+")*+\n')

    def __init__(self, cells: int) -> None:
        super().__init__()
        self._commas = b"," * (cells - 1)
        self._shape = b""  # the commas and the end of a record outside of quotes, the same for all records
        self._is_quoted = False

    def _end(self, window: bytes) -> int:
        """Return the position after the last line feed outside of quotes, or 0.

        Keeps whether the next window begins in quotes.
        """
        self._is_quoted ^= window.count(b'"') % 2 == 1
        is_quoted, end = self._is_quoted, len(window)
        while end >= 0:
            begin = window.rfind(b'"', 0, end) + 1
            if not is_quoted and (at := window.rfind(b"\n", begin, end)) >= 0:
                return at + 1
            is_quoted, end = not is_quoted, begin - 1
        return 0

    def end(self) -> bytes:
        if self._is_quoted and not self.broken:
            self.broken = OPEN_QUOTE
        return super().end()

    def _fault(self, lines: bytes) -> tuple[str, str] | None:
        if not _is_text(lines):
            return ENCODING
        if END in lines and END_ALONE.search(lines):
            return "malformed", "is a backslash and a full stop alone, which ends a COPY"
        # Sound text has no NUL, so a NUL can stand for a carriage return with its line feed.
        shape = lines.replace(b"\r\n", b"\0") if b"\r" in lines else lines
        shape = shape.translate(None, NO_SHAPE).replace(b'""', b"")
        if b'"' in shape:
            shape = b"".join(shape.split(b'"')[::2])
        if not self._shape:  # COPY expects all records to end as the first does
            end = shape.lstrip(b",\r")[:1]
            self.newline, self._shape = b"\r\n" if end == b"\0" else b"\n", self._commas + end
        if shape == self._shape * (len(shape) // len(self._shape)):
            return None
        return ENDS if shape.count(b",") == len(self._commas) else CELLS

    def _too_long(self) -> tuple[str, str]:
        return TOO_LONG_QUOTE if self._is_quoted else TOO_LONG


def header_of(line: bytes) -> list[str]:
    """The names of a CSV's first line. Raises Unreadable."""
    try:
        text = line.removeprefix(MARK).decode()
        names = next(csv.reader([text.rstrip("\r\n")], strict=True))
    except UnicodeDecodeError:
        raise Unreadable(1, *ENCODING) from None
    except csv.Error:
        names = []
    if not names:
        raise Unreadable(1, "malformed", "has not the names of the fields, separated by commas")
    return names


def _is_text(lines: bytes) -> bool:
    """Whether Postgres can hold the lines as text: they are UTF-8 without NUL."""
    if b"\0" in lines:
        return False
    if not lines.isascii():
        try:
            lines.decode()
        except UnicodeDecodeError:
            return False
    return True
