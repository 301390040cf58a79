"""Many small files of one table, read as one text: a file for every stay costs what its rows cost, and no more.

Files are put together in order, in groups that an added file does not shift; their names become a column. A group whose
files are not plain text under one header is read file by file.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Final

import pyarrow as pa

from pipeline.core.errors import DataError
from pipeline.ingest.containers import holder
from pipeline.ingest.engine.batches import FILE_STEM, Tally, damaged, parsed_text, require_mostly_well_formed
from pipeline.ingest.engine.coded import Batch
from pipeline.ingest.number_text import NO_VALUE
from pipeline.ingest.table_files import partitions, stem
from pipeline.ingest.text_stream import UTF8, Head, first_record

_FEWEST: Final = 64
_LARGEST: Final = 1 << 16  # bytes of a small file
_MOST: Final = 512  # files of a group
_PLAIN: Final = (".psv", ".csv", ".tsv")

Group = tuple[Path, ...]


def grouped(paths: Sequence[Path], *, apart: bool) -> list[Group]:
    """The files of a table in their order, small ones together where there are many; `apart` = each for itself."""
    groups = list[list[Path]]()
    joins = not apart and len(paths) >= _FEWEST
    was_small = False
    for path in paths:
        small = (
            joins and path.suffix.lower() in _PLAIN and not partitions(path) and holder(path).stat().st_size <= _LARGEST
        )
        begins = zlib.crc32(path.name.encode()) % 256 == 0  # a place that does not depend on how many there are
        if groups and small and was_small and not begins and len(groups[-1]) < _MOST:
            groups[-1].append(path)
        else:
            groups.append([path])
        was_small = small
    return [tuple(group) for group in groups]


def joined_batches(
    paths: Group, columns: tuple[str, ...], coded: tuple[str, ...], tally: Tally, codes: Collection[str]
) -> Iterator[Batch] | None:
    """The rows of all files as `coded_batches` gives those of one; None where they are not plain text of one header.

    Raises:
        DataError: they cannot be parsed.
    """
    header, texts = b"", list[bytes]()
    for path in paths:
        line, body = _head_and_body(path.read_bytes())
        if b'"' in body or b'"' in line or not body.isascii() or not line.isascii() or (header or line) != line:
            return None
        header = line
        texts.append(body)
    head = first_record(paths[0], UTF8)
    names, delimiter = head.names, head.delimiter
    stripped = [name.strip() for name in names]
    there = {name.lower(): name for name in stripped}
    wanted = {
        there.get(name.lower(), FILE_STEM): name for name in columns if name == FILE_STEM or name.lower() in there
    }
    ids, fields = [stem(path) for path in paths], header.count(delimiter.encode())
    if head.skip or len(there) < len(stripped) or any(_is_uneven(body, delimiter.encode(), fields) for body in texts):
        return None
    if len(wanted) < len(columns) or FILE_STEM in stripped or any(set(f'{delimiter}"\r\n') & set(text) for text in ids):
        return None
    mark = delimiter.encode()
    lines = [FILE_STEM.encode() + mark + header]
    for name, body in zip(ids, texts, strict=True):
        begin = name.encode() + mark
        lines += [begin + line for line in body.split(b"\n") if line]
    empty = [text for text in ("", *NO_VALUE) if text not in codes]
    dictionaries = {source for source, name in wanted.items() if name in coded}
    together = Head([FILE_STEM, *names], delimiter)
    return _batches(paths[0], b"\n".join(lines), together, wanted, dictionaries, tally, empty)


def _is_uneven(body: bytes, mark: bytes, fields: int) -> bool:
    """Whether lines have other numbers of fields than the header: such a file is judged by itself."""
    blank = b"\n\n" in body or body.startswith(b"\n")
    lines = body.count(b"\n") + (body[-1:] not in (b"", b"\n"))
    return blank or body.count(mark) != lines * fields


def _head_and_body(data: bytes) -> tuple[bytes, bytes]:
    data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    head, _, body = data.partition(b"\n")
    return head, body


def _batches(
    path: Path,
    text: bytes,
    head: Head,
    wanted: dict[str, str],
    dictionaries: set[str],
    tally: Tally,
    empty: list[str],
) -> Iterator[Batch]:
    first, before = 0, tally.malformed
    try:
        for table in parsed_text(pa.BufferReader(text), head, wanted, dictionaries, tally, empty):
            named = table.rename_columns(list(wanted.values()))
            arrays = {name: named.column(name).combine_chunks() for name in named.column_names}
            yield Batch(path, first, named.num_rows, arrays)
            first += named.num_rows
    except (OSError, EOFError, pa.ArrowException):
        raise DataError(damaged(path)) from None
    require_mostly_well_formed(path, tally.malformed - before, first)
