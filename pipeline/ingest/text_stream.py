"""Delimited text as valid UTF-8, whatever it was written in; its first record, and what separates its fields.

Nothing but valid UTF-8 reaches the parser: what it makes of other bytes is undefined, down to a crash.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final, final

import pyarrow as pa

from pipeline.core.errors import DataError
from pipeline.ingest.containers import holder, open_member

_HEADER_BYTES: Final = 1 << 20
_DELIMITERS: Final = (",", ";", "\t", "|")
_MARKS: Final = ((codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
_LEAD: Final = re.compile(
    r'(?i)(?:[ \t]*|"?sep=([^"\r\n])"?[ \t]*)(?:\r\n|\n|\r)'
)  # before the header: blank, or sep=;
_BLANK_LINE: Final = re.compile(rb"\n(?=\r?\n)")
_LONGEST_FIELD: Final = 1 << 26
_LINES_LOOKED_AT: Final = 1000
_FEWEST_FIELDS: Final = 4
UTF8: Final = "utf-8"


class NotUtf8(Exception):
    """Bytes that are not of the encoding that a file is read in."""


@final
@dataclass
class Lines:
    """How many lines with something in them a text has, and how many quotes."""

    lines: int = 0
    quotes: int = 0
    _end: bytes = b"\n"

    def see(self, text: bytes) -> None:
        """Count the next part of the text: the ends of lines that do not end an empty one."""
        if not text:
            return
        self.quotes += text.count(b'"')
        blank = len(_BLANK_LINE.findall(text)) if b"\n\n" in text or b"\n\r\n" in text else 0
        blank += self._end == b"\n" and text[:1] == b"\n"
        self.lines += text.count(b"\n") - blank
        self._end = text[-1:]

    def in_quotes(self, records: int) -> int:
        """How many more lines there are than records, where quotes may hold the others' ends."""
        return max(self.lines + (self._end != b"\n") - records, 0) if self.quotes else 0


def open_text(path: Path, encoding: str, lines: Lines | None = None) -> tuple[Any, str]:
    """A stream of UTF-8 for the parser, and the encoding that the file is read in: a mark at its begin goes first.

    `lines` counts what is read.
    """
    with _bytes(path) as peek:
        first = peek.read(2)
    said = next((name for mark, name in _MARKS if first == mark), encoding)
    return pa.PythonFile(_Utf8(_bytes(path), said, lines), mode="r"), said


def not_utf8(path: Path, encoding: str) -> DataError:
    """What is said of a file whose bytes are not of the encoding."""
    if encoding != UTF8:
        return DataError(f"{path} is not {encoding} text, which layout.encoding says that it is")
    return DataError(
        f'{path} is no UTF-8 text; say what it is: layout.encoding = "cp1252" if a Windows program wrote it, or '
        '"latin-1", "utf-16"'
    )


@final
@dataclass(frozen=True)
class Head:
    """The names of the columns as they are written, what separates them, and how many lines come before them.

    `marks`: how many of these are not blank.
    """

    names: list[str]
    delimiter: str
    skip: int = 0
    marks: int = 0


def first_record(path: Path, encoding: str) -> Head:
    """The first record; the delimiter is what a line `sep=;` before it says, the suffix's, or the commonest sign in it.

    Raises:
        NotUtf8: the bytes are not of the encoding.
    """
    stream, _ = open_text(path, encoding)
    with stream as source:
        text = source.read(_HEADER_BYTES).decode("utf-8-sig", errors="ignore")  # the last sign may be cut off
    skip, marks, said = 0, 0, None
    while (lead := _LEAD.match(text)) is not None:
        skip, marks, said, text = skip + 1, marks + (lead[1] is not None), lead[1] or said, text[lead.end() :]
    plain = _record(text)
    name = path.name.lower().removesuffix(".gz")
    if said is not None:
        delimiter = said
    elif name.endswith(".psv"):
        delimiter = "|"
    elif name.endswith(".tsv"):
        delimiter = "\t"
    else:
        delimiter = max(_DELIMITERS, key=_outside_quotes(plain).count)
    return Head(next(csv.reader(io.StringIO(plain, newline=""), delimiter=delimiter), []), delimiter, skip, marks)


def holds_rows_in_quotes(path: Path, encoding: str, head: Head) -> bool:
    """Whether most lines within quotes, of the first thousand, have the header's number of fields, four or more.

    A text of several lines hardly has; rows that two quotes took between them do.
    """
    stream, _ = open_text(path, encoding)
    lines = rows = 0
    csv.field_size_limit(_LONGEST_FIELD)
    with stream as source:
        text = io.TextIOWrapper(io.BufferedReader(source), encoding="utf-8-sig", newline="")
        for record in csv.reader(islice(text, head.skip, None), delimiter=head.delimiter):
            within = [line for cell in record if "\n" in cell for line in cell.split("\n")[1:]]
            lines += len(within)
            rows += sum(len(line.split(head.delimiter)) == len(head.names) for line in within)
            if lines >= _LINES_LOOKED_AT:
                break
    return len(head.names) >= _FEWEST_FIELDS and 2 * rows > lines


def _record(text: str) -> str:
    """Up to the first end of line that no quotes hold."""
    quoted = False
    for at, sign in enumerate(text):
        if sign == '"':
            quoted = not quoted
        elif sign in "\r\n" and not quoted:
            return text[:at]
    return text.split("\n", 1)[0]  # a quote that nobody closes


def _outside_quotes(text: str) -> str:
    return "".join(part for part in text.split('"')[::2])


def _bytes(path: Path) -> Any:
    file = pa.OSFile(str(path)) if holder(path) == path else pa.PythonFile(open_member(path), mode="r")
    return pa.CompressedInputStream(file, "gzip") if path.name.lower().endswith(".gz") else file


class _Utf8(io.RawIOBase):
    """Bytes of an encoding as UTF-8; reading raises `NotUtf8` at bytes that are none."""

    def __init__(self, source: Any, encoding: str, lines: Lines | None) -> None:
        self._source, self._as_it_is, self._lines = source, encoding == UTF8, lines
        self._decoder = codecs.getincrementaldecoder(encoding)()
        self._rest, self._pending = b"", False

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        while not self._rest:
            data = self._source.read(1 << 20 if size < 0 else size)
            if self._as_it_is and data and not self._pending and data.isascii():
                self._rest = data  # by far the most text: nothing to decode
                self._count()
                break
            try:
                text = self._decoder.decode(data, final=not data)
            except UnicodeDecodeError:
                raise NotUtf8 from None
            self._pending = bool(self._decoder.getstate()[0])
            self._rest = bytes(data) if self._as_it_is else text.encode()
            self._count()
            if not data:
                break
        if len(self._rest) <= size:
            taken, self._rest = self._rest, b""
            return taken
        taken, self._rest = (self._rest, b"") if size < 0 else (self._rest[:size], self._rest[size:])
        return taken

    def _count(self) -> None:
        if self._lines is not None:
            self._lines.see(self._rest)

    def close(self) -> None:
        self._source.close()
        super().close()
