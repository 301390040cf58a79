"""The text files of a folder or archive with the keys of their pieces; only those without a piece are opened."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import final

import polars as pl

from pipeline.core.digest import digest_bytes
from pipeline.core.errors import EnvironmentProblem
from pipeline.ingest.kept.pieces import Pieces
from pipeline.ingest.sources.archive import text_files
from pipeline.ingest.withdrawn import Withdrawn


@final
@dataclass(frozen=True, repr=False)
class StayFile:
    """One stay's file: its name without .txt, its piece's key, whether that may be kept, the content if it is new."""

    name: str
    key: str
    kept: bool
    content: bytes | None


def members(path: Path, pieces: Pieces, withdrawn: Withdrawn) -> Iterator[StayFile]:
    """What `text_files` gives, in its order, without the content of what has a piece.

    An archive that is as it was is not even decompressed: the list of its members is a piece, too. Files of withdrawn
    stays have no piece; they are read every night, to be counted.

    Raises:
        DataError: as `text_files`. EnvironmentProblem: a file vanished or changed while it was read.
    """
    if path.is_dir():
        yield from _folder(path, pieces, withdrawn)
    elif path.is_file():
        yield from _archive(path, pieces, withdrawn)
    else:
        yield from (StayFile(name, "", False, content) for name, content in text_files(path))  # says what is wrong


def _folder(path: Path, pieces: Pieces, withdrawn: Withdrawn) -> Iterator[StayFile]:
    found = [file for file in sorted(path.glob("*.txt")) if not file.name.startswith(".") and file.is_file()]
    for file, gone in zip(found, withdrawn.holds(file.stem for file in found), strict=True):
        digest = pieces.marks.digest(file)
        key = _key(pieces, file.stem, digest)
        if not gone and pieces.has(key):
            yield StayFile(file.stem, key, True, None)
            continue
        try:
            content = file.read_bytes()
        except OSError as error:
            raise EnvironmentProblem(f"{path}: a text file vanished or cannot be read: {error.strerror}") from None
        if digest_bytes(content) != digest:
            raise EnvironmentProblem(f"{path}: a file changed while the source was read; read it once the export ended")
        yield StayFile(file.stem, key, not gone, content)


def _archive(path: Path, pieces: Pieces, withdrawn: Withdrawn) -> Iterator[StayFile]:
    listing = pieces.key("members", pieces.marks.digest(path))
    known = pieces.facts(listing)
    if (
        known is not None
        and all(pieces.has(key) for _, key in known)
        and not any(withdrawn.holds(name for name, _ in known))
    ):
        pieces.use([listing])
        yield from (StayFile(name, key, True, None) for name, key in known)
        return
    named: list[tuple[str, str]] = []
    whole = True
    for name, content in text_files(path):
        key = _key(pieces, name, digest_bytes(content))
        gone = withdrawn.holds([name])[0]
        whole &= not gone
        named.append((name, key))
        yield StayFile(name, key, not gone, None if pieces.has(key) and not gone else content)
    pieces.marks.require_unchanged()
    if whole:
        pieces.use(pieces.add([listing], [0], [named], pl.DataFrame()))


def _key(pieces: Pieces, name: str, digest: str) -> str:
    """The check that RecordID is the file's name is part of the parsing, so the name is part of the key."""
    return pieces.key("stay", name, digest)
