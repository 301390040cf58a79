"""Content-addressed artefacts: stage, hash, rename.

    objects/ab/abcd.../  meta.json  arrays.safetensors     an artefact, named by the digest of what it says
    index/<stage key>    the digest that a stage made from these parents, options and code: what resume looks up, under
                         a MAC of a key that is not in the store, so that who can write here cannot put words into it
    uses/<run>           a line per run, then one per stage key that it made or found: what a clean-up keeps

A write goes to a temporary folder, is synced and renamed: a kill or a full disk leaves an artefact whole or absent.
Folders are 0700: a store holds patients' data and never leaves the site.
"""

from __future__ import annotations

import errno
import hmac
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Generic, TypeVar, final

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from pipeline.core import types
from pipeline.core.codec import from_parts, record_head
from pipeline.core.digest import canonical_json, digest_array, digest_json
from pipeline.core.errors import DataError, UsageError
from pipeline.core.files.mapped import LARGE_BYTES
from pipeline.core.files.whole import put_whole, write_synced
from pipeline.core.types import drift as drift_types

T = TypeVar("T")
A_co = TypeVar("A_co", covariant=True)

KINDS: Final[Mapping[str, type[Any]]] = {
    kind.__name__: kind
    for kind in (
        types.Cohort,
        types.EncodedCohort,
        types.Moments,
        types.CondensedSet,
        types.LossCurve,
        types.IngestReport,
        types.ContractResult,
        types.UtilityReport,
        types.Grouping,
        types.AuditPiece,
        types.LeakageReport,
        types.GateDecision,
        types.ReleaseRecord,
        drift_types.CohortProfile,
        drift_types.DriftReport,
    )
}

USES: Final = "uses"
BEGINS: Final = "begins"

_DTYPES: Final[Mapping[str, str]] = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BOOL": "?",
    **{f"{sign}{bits}": f"<{sign.lower()}{bits // 8}" for sign in "IU" for bits in (8, 16, 32, 64)},
}


@dataclass(frozen=True)
class Entry:
    """One stored artefact, without its content."""

    digest: str
    kind: str
    size_bytes: int


@dataclass(frozen=True)
class Made(Generic[A_co]):
    """What a stage made: digests in the stage's order, seconds it took when it was computed.

    The type of its main artefact is told to a type checker alone: nothing is kept of it.
    """

    digests: tuple[str, ...]
    seconds: float
    reused: bool

    @property
    def first(self) -> str:
        """The digest of the stage's main artefact."""
        return self.digests[0]


@final
@dataclass(frozen=True)
class Link:
    """A note that whoever holds the store's key wrote: which stage made what from what."""

    key: str  # of the stage
    stage: str
    digests: tuple[str, ...]
    parents: tuple[str, ...]


@final
class Store:
    """The artefacts of one workspace.

    A note of what a stage made counts only under the MAC of `key`: any other is as good as none, and the stage is done
    again. Without a key, as for who only looks at artefacts, no note counts.
    """

    def __init__(self, root: Path, key: bytes | None = None) -> None:
        self.root = root
        self._key = key
        for part in ("objects", "index", "tmp"):
            (root / part).mkdir(parents=True, exist_ok=True, mode=0o700)

    def put(self, record: Any) -> str:
        """Store a dataclass of a known kind; returns its digest. Storing the same content again is a no-op."""
        head, arrays = record_head(record)
        digest = digest_json(head)
        target = self._object(digest)
        if target.exists():
            return digest
        staged = Path(tempfile.mkdtemp(dir=self.root / "tmp"))
        try:
            write_synced(staged / "meta.json", canonical_json(head))
            _save_synced(staged / "arrays.safetensors", arrays)
            target.parent.mkdir(exist_ok=True, mode=0o700)
            staged.rename(target)
        except OSError:
            if not target.exists():  # else another process stored the same content meanwhile
                raise
        finally:
            shutil.rmtree(staged, ignore_errors=True)
        return digest

    def get(self, digest: str, kind: type[T]) -> T:
        """Load an artefact and check that it still is what its name says; arrays of `LARGE_BYTES` are left in its file.

        Raises:
            DataError: absent, of another kind, or damaged on disk.
        """
        head, folder = self._head(digest, kind)
        try:
            arrays = _read_arrays(folder / "arrays.safetensors")
        except Exception:
            raise DataError(f"artefact {digest[:12]} is damaged on disk: its arrays cannot be read") from None
        found = {name: digest_array(array) for name, array in arrays.items()}
        if found != head["arrays"] or digest_json(head) != digest:
            raise DataError(f"artefact {digest[:12]} is damaged on disk: its content does not match its digest")
        return from_parts(kind, head["meta"], arrays)

    def rows(self, digest: str, kind: type[T], rows: slice) -> T:
        """The stays `rows` of a cohort, raw or encoded, each array a view of its file; nothing else is read.

        The digest is not checked: who maps over blocks of stays has loaded the artefact by `get` before.

        Raises:
            DataError: absent, or of another kind.
        """
        head, folder = self._head(digest, kind)
        arrays = _read_arrays(folder / "arrays.safetensors", large=1)
        return from_parts(kind, head["meta"], {name: array[rows] for name, array in arrays.items()})

    @property
    def scratch(self) -> Path:
        """The folder for what is larger than memory while an artefact is being made: as private as the artefacts."""
        return self.root / "tmp"

    def kind_of(self, digest: str) -> str:
        """The kind of a stored artefact."""
        return str(self._head(digest)[0]["kind"])

    def describe(self, digest: str) -> dict[str, Any]:
        """An artefact's plain fields and array digests, without loading arrays.

        Raises:
            DataError: absent, or not what its name says.
        """
        head = self._head(digest)[0]
        if digest_json(head) != digest:
            raise DataError(f"artefact {digest[:12]} is damaged on disk: its description does not match its digest")
        return head

    def summary(self, digest: str) -> str:
        """Kind and shapes in a few words."""
        head, folder = self._head(digest)
        with safe_open(folder / "arrays.safetensors", framework="numpy") as file:
            shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118 (no dict)
        if not shapes:
            return str(head["kind"])
        largest = max(shapes, key=lambda name: (np.prod(shapes[name]), name))
        return f"{head['kind']}, {largest} {' x '.join(str(size) for size in shapes[largest])}"

    def resolve(self, prefix: str) -> str:
        """The full digest that starts with `prefix`.

        Raises:
            UsageError: none or several do.
        """
        found = [entry.digest for entry in self.entries() if entry.digest.startswith(prefix)]
        if len(found) != 1:
            raise UsageError(f"{len(found)} artefacts in {self.root} have a digest starting with {prefix!r}")
        return found[0]

    def entries(self) -> Iterator[Entry]:
        """All artefacts, in digest order."""
        for folder in sorted((self.root / "objects").glob("*/*")):
            size = sum(file.stat().st_size for file in folder.iterdir())
            yield Entry(folder.name, self.kind_of(folder.name), size)

    def made(self, stage_key: str) -> Made[Any] | None:
        """What a finished stage made, if all of it is still here."""
        try:
            note = json.loads((self.root / "index" / stage_key).read_text(encoding="ascii"))
            if not self._is_ours(stage_key, note):
                return None
            made: Made[Any] = Made(tuple(note["digests"]), float(note["seconds"]), reused=True)
        except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
            return None
        return made if all(self._object(digest).exists() for digest in made.digests) else None

    def links(self) -> Iterator[Link]:
        """Every note under the store's key, in the order of the stages' keys; what else lies there is left out."""
        for path in sorted((self.root / "index").iterdir()):
            try:
                note = json.loads(path.read_text(encoding="ascii"))
                if self._is_ours(path.name, note):
                    told = str(note.get("stage", ""))
                    yield Link(path.name, told, tuple(note["digests"]), tuple(note.get("parents", ())))
            except (OSError, ValueError, KeyError, TypeError, AttributeError):
                continue

    def check(self, digest: str) -> None:
        """The artefact is there, and all of it is what its name says.

        Raises:
            DataError: it is not.
        """
        self.get(digest, KINDS[self.kind_of(digest)])

    def remember(self, stage_key: str, made: Made[object], *, stage: str = "", parents: tuple[str, ...] = ()) -> None:
        """Note what a finished stage made, and from what; replaces an older note in one step."""
        note: dict[str, Any] = {"digests": list(made.digests), "seconds": round(made.seconds, 3)}
        note |= {"stage": stage, "parents": list(parents)} if stage else {}
        if self._key is not None:
            note["mac"] = _mac(self._key, stage_key, note)
        put_whole(self.root / "index" / stage_key, json.dumps(note).encode(), staged_in=self.root / "tmp")

    def _is_ours(self, stage_key: str, note: Mapping[str, Any]) -> bool:
        """Whether the note was written for this stage by whoever holds the key."""
        if self._key is None:
            return False
        told = {name: value for name, value in note.items() if name != "mac"}
        return hmac.compare_digest(str(note["mac"]).encode(), _mac(self._key, stage_key, told).encode())

    def used(self, run: str, stage_key: str) -> None:
        """Note that the run made or found what this stage makes; `BEGINS`: what it uses from here on is its own."""
        (self.root / USES).mkdir(exist_ok=True, mode=0o700)
        with (self.root / USES / run).open("a", encoding="ascii") as stream:
            stream.write(f"{stage_key}\n")

    def once(
        self,
        stage_key: str,
        make: Callable[[], tuple[Any, ...]],
        *,
        resume: bool,
        stage: str = "",
        parents: tuple[str, ...] = (),
    ) -> Made[Any]:
        """Store what `make` returns; with `resume`, find what an earlier, finished call stored instead."""
        if resume and (known := self.made(stage_key)) is not None:
            return known
        begin = time.monotonic()
        digests = tuple(self.put(record) for record in make())
        made: Made[Any] = Made(digests, time.monotonic() - begin, reused=False)
        self.remember(stage_key, made, stage=stage, parents=parents)
        return made

    def _object(self, digest: str) -> Path:
        return self.root / "objects" / digest[:2] / digest

    def _head(self, digest: str, kind: type[Any] | None = None) -> tuple[dict[str, Any], Path]:
        folder = self._object(digest)
        try:
            head = json.loads((folder / "meta.json").read_bytes())
        except FileNotFoundError:
            raise DataError(f"artefact {digest[:12]} is not in the store {self.root}") from None
        except ValueError:
            raise DataError(f"artefact {digest[:12]} is damaged on disk: its description cannot be read") from None
        if kind is not None and head["kind"] != kind.__name__:
            raise DataError(f"artefact {digest[:12]} is a {head['kind']}, expected a {kind.__name__}")
        return head, folder


def _mac(key: bytes, stage_key: str, note: Mapping[str, Any]) -> str:
    """HMAC-SHA256 over the stage's key and all that the note says."""
    return hmac.digest(key, canonical_json({"stage_key": stage_key, **note}), "sha256").hex()


def _read_arrays(path: Path, large: int | None = None) -> dict[str, np.ndarray]:
    """Arrays by name; one of `large` bytes (None = `LARGE_BYTES`) or more is mapped read-only.

    So reading an artefact never takes its size in memory.
    """
    large = LARGE_BYTES if large is None else large
    arrays: dict[str, np.ndarray] = {}
    with safe_open(path, framework="numpy") as file:  # checks the header that `_places` reads
        for name, (start, end) in _places(path).items():
            if end - start < large:
                arrays[name] = file.get_tensor(name)
                continue
            part = file.get_slice(name)
            dtype = np.dtype(_DTYPES[part.get_dtype()])
            arrays[name] = np.memmap(path, dtype, "r", offset=start, shape=tuple(part.get_shape()))
    return arrays


def _places(path: Path) -> dict[str, tuple[int, int]]:
    """Where each array's bytes begin and end in a safetensors file: 8 bytes of length, a JSON header, the data."""
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        header = json.loads(stream.read(length))
    header.pop("__metadata__", None)
    return {name: tuple(8 + length + offset for offset in told["data_offsets"]) for name, told in header.items()}


def _save_synced(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Raises OSError: safetensors hides the system's error in one of its own, and a full disk would go unnamed."""
    try:
        save_file(dict(arrays), path)
    except SafetensorError as error:
        code = re.search(r"\(os error (\d+)\)", str(error))
        number = int(code[1]) if code else errno.EIO
        raise OSError(number, os.strerror(number)) from None
    with path.open("rb") as stream:
        os.fsync(stream.fileno())
