"""What was parsed of a source, kept for the next night: rows by the digest of the content that they were parsed from.

    pieces/<name>.arrow    rows of many pieces, one below the other
    pieces/<name>.json     where each piece lies, and what its reader noted: {key: [from, rows, facts]}
    pieces/used/<run>      the keys that a run's last reading used: what `decoct store gc` keeps

A key is a digest over content, mapping and the reader's version: a piece is right or is not found. Rows are patients'
data; the folder is its owner's alone.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, final

import numpy as np
import polars as pl

from pipeline.core.digest import digest_json
from pipeline.core.errors import EnvironmentProblem
from pipeline.core.files.whole import put_whole, sync_folder
from pipeline.ingest.kept.watermarks import Watermarks

USED: Final = "used"
_PACK_ROWS: Final = 1 << 22  # of a file: what is kept in memory until it is written
_MOST_PACKS: Final = 4  # held at a time when pieces are taken
_ROWS: Final = {"stay": pl.UInt32, "hours": pl.Float64, "variable": pl.String, "value": pl.Float64}


@final
@dataclass(frozen=True)
class _Place:
    """Where a piece's rows are, and its facts; `pack` None = in memory, in the block of that number.

    Facts may name every stay of a file, so they are held as they are written: ten bytes a name, and no objects.
    """

    pack: str | None
    block: int
    start: int
    rows: int
    facts: bytes


@final
@dataclass
class _Waiting:
    """Blocks that are not on the disk yet."""

    frames: list[pl.DataFrame] = field(default_factory=list)
    keys: dict[str, tuple[int, int, Any]] = field(default_factory=dict)  # key -> from, rows, facts
    rows: int = 0


@final
class Pieces:
    """The pieces of a workspace, for one reading; `fresh` = none of the old ones is used, as for a full reading."""

    def __init__(self, folder: Path, version: str, marks: Watermarks, *, fresh: bool = False) -> None:
        self.marks = marks
        self._folder, self._version = folder, version
        self._places: dict[str, _Place] = {}
        self._blocks: list[pl.DataFrame] = []
        self._packs: dict[str, pl.DataFrame] = {}
        self._passing: set[int] = set()  # blocks that go as soon as they are written
        self._waiting = _Waiting()
        self._used: dict[str, None] = {}
        self._lock = threading.RLock()
        self.parsed = 0  # pieces made now
        for name, index in () if fresh else _each_index(folder):
            for key, (start, rows, facts) in index.items():
                self._places[key] = _Place(name, 0, start, rows, _as_written(facts))

    def key(self, *parts: Any) -> str:
        """The name of what these parts determine; of this reader's version only."""
        return digest_json([self._version, *parts])

    def has(self, key: str) -> bool:
        """Whether a piece is here."""
        return key in self._places

    def facts(self, key: str) -> Any:
        """What was noted of a piece; None = it is not here."""
        place = self._places.get(key)
        return None if place is None else json.loads(place.facts)

    def rows(self, key: str) -> int:
        """How many rows a piece has that is here."""
        return self._places[key].rows

    def add(
        self,
        keys: Sequence[str | None],
        rows: Sequence[int],
        facts: Sequence[Any],
        frame: pl.DataFrame,
        *,
        passing: bool = False,
    ) -> list[str]:
        """Put pieces, whose rows lie in `frame` one below the other; returns their keys.

        A key None is for this reading only: it gets one, and is not kept. `passing`: the reading has the rows already
        and will hardly take them again, so they are in memory until they are written, and no longer.

        Raises:
            EnvironmentProblem: the disk refuses.
        """
        columns = [frame[name].cast(kind) if name in frame.columns else _empty(name, kind, frame.height)
                   for name, kind in _ROWS.items()]  # fmt: skip
        columns += [frame["known"]] if "known" in frame.columns else []
        frame = pl.DataFrame(columns)
        named: list[str] = []
        with self._lock:
            block, start = len(self._blocks), 0
            self._blocks.append(frame)
            if passing and None not in keys:
                self._passing.add(block)
            for key, size, told in zip(keys, rows, facts, strict=True):
                own = key if key is not None else f"{block}/{start}/{len(named)}"
                self._places[own] = _Place(None, block, start, size, _as_written(told))
                named.append(own)
                start += size
            self.parsed += len(named)
            self._wait(frame, keys, rows, facts)
            if self._waiting.rows >= _PACK_ROWS:
                self._write()
        return named

    def take(self, keys: Sequence[str]) -> pl.DataFrame:
        """The rows of the pieces, one below the other: stay (their reader's number), hours, variable, value."""
        parts: list[pl.DataFrame] = []
        run: tuple[str | None, int, int, int] | None = None  # pack, block, from, to: pieces that lie side by side
        with self._lock:  # a block that passes may be written, and its piece be elsewhere, at any time
            for key in keys:
                place = self._places[key]
                if run is not None and (place.pack, place.block, place.start) == (run[0], run[1], run[3]):
                    run = (*run[:3], run[3] + place.rows)
                    continue
                if run is not None:
                    parts.append(self._rows(*run))
                run = (place.pack, place.block, place.start, place.start + place.rows)
            if run is not None:
                parts.append(self._rows(*run))
        self.use(keys)
        return pl.concat(parts) if parts else pl.DataFrame(schema=_ROWS)

    def use(self, keys: Iterable[str]) -> None:
        """Note pieces as wanted by this reading."""
        with self._lock:
            self._used.update(dict.fromkeys(keys))

    def finish(self, run: str) -> None:
        """Write what is not on the disk yet, and which pieces this reading of `run` used; rows that can be had from the
        disk are held no longer.

        Raises:
            EnvironmentProblem: the disk refuses.
        """
        self._write()
        self._packs.clear()
        kept = sorted(key for key in self._used if "/" not in key)
        try:
            (self._folder / USED).mkdir(parents=True, exist_ok=True, mode=0o700)
            put_whole(self._folder / USED / run, "\n".join(kept).encode())
        except OSError as error:
            raise _refused(self._folder, error) from None

    def _wait(self, frame: pl.DataFrame, keys: Sequence[str | None], rows: Sequence[int], facts: Sequence[Any]) -> None:
        """Put the block into the queue for the disk, less what is not kept."""
        start = 0
        gone: list[tuple[int, int]] = []
        for key, size, told in zip(keys, rows, facts, strict=True):
            if key is None:
                gone.append((start, size))
            else:
                before = sum(rows for _, rows in gone)
                self._waiting.keys[key] = (self._waiting.rows + start - before, size, told)
            start += size
        if gone:
            keep = np.ones(frame.height, dtype=bool)
            for first, size in gone:
                keep[first : first + size] = False
            frame = frame.filter(pl.Series(keep))
        self._waiting.frames.append(frame)
        self._waiting.rows += frame.height

    def _write(self) -> None:
        waiting, self._waiting = self._waiting, _Waiting()
        if not waiting.keys:
            return
        name = write_pack(self._folder, pl.concat(waiting.frames), waiting.keys)
        for key, (start, rows, _) in waiting.keys.items():
            place = self._places[key]
            if place.pack is None and place.block in self._passing:
                self._places[key] = _Place(name, 0, start, rows, place.facts)
        for block in self._passing:
            self._blocks[block] = self._blocks[block].clear()
        self._passing = set()

    def _rows(self, pack: str | None, block: int, start: int, end: int) -> pl.DataFrame:
        if pack is None:
            return self._blocks[block].slice(start, end - start)
        with self._lock:
            if pack not in self._packs:
                while len(self._packs) >= _MOST_PACKS:  # the oldest first: pieces are taken in the order of packs
                    del self._packs[next(iter(self._packs))]
                self._packs[pack] = read_pack(self._folder, pack)
            return self._packs[pack].slice(start, end - start)


def _empty(name: str, kind: Any, height: int) -> pl.Series:
    return pl.Series(name, [None], dtype=kind).new_from_index(0, height)


def write_pack(folder: Path, frame: pl.DataFrame, keys: Mapping[str, tuple[int, int, Any]]) -> str:
    """Write pieces as one pack, rows first: a pack without an index is nothing; returns its name.

    Raises:
        EnvironmentProblem: the disk refuses.
    """
    name = hashlib.sha256("\n".join(keys).encode()).hexdigest()[:32]
    staged = folder / f".{name}.{os.getpid()}.new"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        (folder / f"{name}.json").unlink(missing_ok=True)  # of the same pieces, written before
        try:
            frame.write_ipc(staged, compression="lz4")
            with staged.open("rb") as stream:
                os.fsync(stream.fileno())
            staged.replace(folder / f"{name}.arrow")
        finally:
            staged.unlink(missing_ok=True)
        sync_folder(folder)
        put_whole(folder / f"{name}.json", _as_written(keys))
    except OSError as error:
        raise _refused(folder, error) from None
    return name


def read_pack(folder: Path, name: str) -> pl.DataFrame:
    """The rows of a pack.

    Raises:
        EnvironmentProblem: gone or damaged, after its index was read.
    """
    try:
        return pl.read_ipc(folder / f"{name}.arrow")
    except (OSError, pl.exceptions.PolarsError):
        raise EnvironmentProblem(
            f"{folder}: parsed rows that were kept cannot be read; run: decoct store gc --pieces --yes"
        ) from None


def indexes(folder: Path) -> list[tuple[str, dict[str, tuple[int, int, Any]]]]:
    """(name, index) of every whole pack, the newest last; one whose index is damaged counts as absent.

    A part that was parsed again, because its stays had changed, has the key of the older one: the newest counts.
    """
    return list(_each_index(folder))


def _each_index(folder: Path) -> Iterator[tuple[str, dict[str, tuple[int, int, Any]]]]:
    """As `indexes`, one after the other: those of a large source are not held at a time."""
    for path in sorted(folder.glob("*.json"), key=_written):
        try:
            index = json.loads(path.read_bytes())
        except (OSError, ValueError):
            continue
        if isinstance(index, dict) and path.with_suffix(".arrow").exists():
            yield path.stem, index


def _as_written(facts: Any) -> bytes:
    return json.dumps(facts, separators=(",", ":")).encode()


def _written(path: Path) -> tuple[int, str]:
    try:
        return path.stat().st_mtime_ns, path.name
    except OSError:  # gone meanwhile
        return 0, path.name


def _refused(folder: Path, error: OSError) -> EnvironmentProblem:
    what = "the disk is full" if error.errno == 28 else error.strerror
    return EnvironmentProblem(f"{folder} cannot be written: {what}")
