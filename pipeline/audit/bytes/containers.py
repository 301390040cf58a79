"""Files inside files: what a byte search would miss because it is compressed or columnar."""

from __future__ import annotations

import gzip
import io
import json
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from pipeline.core.errors import DataError

MAX_DEPTH = 3
MAX_OPENED_BYTES = 1 << 31  # a bundle that unpacks to more is refused, not searched in part
NAMES = "names of files"  # a file's name can hold an identifier, too
CLOSED_MAGIC = {  # formats that hide their content and that nothing here opens
    b"\x28\xb5\x2f\xfd": "zstandard",
    b"\xfd7zXZ\x00": "xz",
    b"BZh": "bzip2",
    b"7z\xbc\xaf\x27\x1c": "7z",
    b"age-encryption.org/": "age",
}


@dataclass(frozen=True)
class Opened:
    """All files with what is in them; names of inner files are `outer!inner`."""

    files: dict[str, bytes]
    closed: tuple[str, ...]  # could not be opened, so nobody knows what is in them
    wrappers: frozenset[str]  # were opened in full
    columns: frozenset[str]  # arrays of numbers


def opened(files: Mapping[str, bytes]) -> Opened:
    """Open what can be opened, containers inside containers too.

    Raises:
        DataError: the content is larger than can be searched.
    """
    found: dict[str, bytes] = {}
    closed: list[str] = []
    wrappers: list[str] = []
    columns: list[str] = []
    size = 0
    queue = [(name, data, 0) for name, data in sorted(files.items())]
    while queue:
        name, data, depth = queue.pop()
        found[name] = data
        size += len(data)
        if size > MAX_OPENED_BYTES:
            raise DataError(f"the files to scan unpack to more than {MAX_OPENED_BYTES} bytes at {name}")
        try:
            inside = list(_inside(name, data)) if not is_hidden(data) else None
        except (
            ValueError,
            KeyError,
            TypeError,
            AttributeError,
            OSError,
            EOFError,
            zlib.error,
            zipfile.BadZipFile,
            NotImplementedError,
            RuntimeError,
        ):
            inside = None
        if inside is None or (inside and depth == MAX_DEPTH):
            closed.append(name)
            continue
        wrappers += [name] if inside else []
        if inside and _is_safetensors(data):
            del found[name]  # header and tensors say all of it again
        columns += [inner for inner, _, is_column in inside if is_column]
        queue += [(inner, content, depth + 1) for inner, content, _ in inside]
    found[NAMES] = "\n".join(found).encode()
    return Opened(found, tuple(sorted(closed)), frozenset(wrappers), frozenset(columns))


def is_hidden(data: bytes) -> bool:
    """Whether it is packed or encrypted in a way that nothing here opens."""
    return any(data.startswith(magic) for magic in CLOSED_MAGIC)


Inner = tuple[str, bytes, bool]
"""Name, content, and whether it is an array of numbers."""


def _inside(name: str, data: bytes) -> Iterator[Inner]:
    if data.startswith(b"PAR1"):
        yield from _parquet(name, data)
    elif _is_safetensors(data):
        yield from _safetensors(name, data)
    elif data.startswith(b"PK\x03\x04"):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for item in archive.infolist():
                if item.file_size > MAX_OPENED_BYTES:
                    raise DataError(f"an item of {name} unpacks to more than {MAX_OPENED_BYTES} bytes")
                yield f"{name}!{item.filename}", archive.read(item), False
    elif data.startswith(b"\x1f\x8b"):
        with gzip.open(io.BytesIO(data)) as stream:
            content = stream.read(MAX_OPENED_BYTES + 1)
        if len(content) > MAX_OPENED_BYTES:
            raise DataError(f"{name} unpacks to more than {MAX_OPENED_BYTES} bytes")
        yield f"{name}!content", content, False


def _parquet(name: str, data: bytes) -> Iterator[Inner]:
    """Schema, key-value metadata, statistics as text; each column decompressed, numbers as little-endian bytes."""
    import pyarrow.parquet as pq

    file = pq.ParquetFile(io.BytesIO(data))
    texts = [str(file.schema_arrow), json.dumps(_decoded(file.metadata.metadata or {}))]
    for group in range(file.metadata.num_row_groups):
        for column in range(file.metadata.num_columns):
            statistics = file.metadata.row_group(group).column(column).statistics
            if statistics is not None and statistics.has_min_max:
                texts += [str(statistics.min), str(statistics.max)]
    yield f"{name}!metadata", "\n".join(texts).encode(), False
    table = file.read()
    for index, title in enumerate(table.column_names):
        array = table.column(index).to_numpy(zero_copy_only=False)
        if array.dtype.kind in "iuf":
            yield f"{name}!{title}", np.ascontiguousarray(array).tobytes(), True
        else:
            yield f"{name}!{title}", "\n".join(map(str, array.tolist())).encode(), False


def _safetensors(name: str, data: bytes) -> Iterator[Inner]:
    """The header as text, less the offsets (sizes look like identifiers), and each tensor as an array.

    Raises:
        ValueError: the tensors do not cover the file, so that bytes would go unread.
    """
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    spans = {title: item.pop("data_offsets") for title, item in header.items() if title != "__metadata__"}
    edges = [0, *(last for _, last in sorted(spans.values()))]
    if [first for first, _ in sorted(spans.values())] != edges[:-1] or start + edges[-1] != len(data):
        raise ValueError("bytes outside the tensors")
    yield f"{name}!header", json.dumps(header).encode(), False
    for title, (first, last) in spans.items():
        yield f"{name}!{title}", data[start + first : start + last], True


def _is_safetensors(data: bytes) -> bool:
    return data[8:9] == b"{" and int.from_bytes(data[:8], "little") <= len(data) - 8


def _decoded(metadata: Mapping[bytes, bytes]) -> dict[str, str]:
    return {key.decode("utf-8", "replace"): value.decode("utf-8", "replace") for key, value in metadata.items()}
