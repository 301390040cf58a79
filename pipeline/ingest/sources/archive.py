"""Text files of a folder, or of a tar or tar.gz read as a stream and never unpacked to disk."""

from __future__ import annotations

import gzip
import io
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from posixpath import basename, splitext
from typing import Final

from pipeline.core.errors import DataError

_GZIP_MAGIC: Final = b"\x1f\x8b"
_BUFFER: Final = 1 << 20


def text_files(source: Path) -> Iterator[tuple[str, bytes]]:
    """(file name without .txt, content) of every `*.txt` in a folder (by name) or archive (in its order).

    Hidden files (macOS leaves `._name` twins) and other suffixes are passed over.

    Raises:
        DataError: nothing there, not a tar, or an archive that ends early or whose checksum is wrong.
    """
    if source.is_dir():
        yield from _folder(source)
    elif source.is_file():
        if source.stat().st_size == 0:
            raise DataError(f"{source} is an empty file")
        yield from _archive(source)
    else:
        raise DataError(f"{source} not found; expected a folder or tar.gz of one text file per stay")


def _folder(folder: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted(folder.glob("*.txt")):
        if path.is_file() and not path.name.startswith("."):
            try:
                content = path.read_bytes()
            except OSError:
                raise DataError(f"{folder}: a text file cannot be read; check permissions") from None
            yield path.stem, content


def _archive(path: Path) -> Iterator[tuple[str, bytes]]:
    try:
        with path.open("rb") as file:
            packed = file.read(2) == _GZIP_MAGIC
            file.seek(0)
            yield from _members(io.BufferedReader(gzip.GzipFile(fileobj=file), _BUFFER) if packed else file)
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise DataError(f"{path} is damaged or ends early: its compressed data is incomplete") from None
    except tarfile.TarError:
        raise DataError(f"{path} is not a tar or tar.gz archive, or it ends early") from None
    except OSError:
        raise DataError(f"{path} cannot be read") from None


def _members(stream: io.BufferedReader) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(fileobj=stream, mode="r|") as tar:
        for member in tar:
            stem, suffix = splitext(basename(member.name))
            if member.isfile() and suffix == ".txt" and not stem.startswith("."):
                content = tar.extractfile(member)
                if content is not None:
                    yield stem, content.read()
    while stream.read(_BUFFER):  # to the end, so that gzip checks length and CRC
        pass
