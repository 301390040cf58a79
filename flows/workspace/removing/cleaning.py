"""What of a store nobody needs any more, and what in it is damaged.

Kept is what the last runs of every name made or found, and what the newest release of every name and all proposals
came from, with all that came before it. Everything else can be made again. A workspace on whose runs nothing is on
record keeps all that a note names.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

import polars as pl

from flows.workspace.releases import PROPOSALS, RELEASES
from flows.workspace.removing.graph import Graph, graph_of, last_uses
from flows.workspace.removing.purge import Plan, object_folder, size_of
from pipeline.core.errors import DecoctError
from pipeline.core.types import ReleaseRecord
from pipeline.ingest.kept.pieces import USED, indexes, read_pack, write_pack
from pipeline.store import KINDS, Store

OLD_SECONDS: Final = 86_400.0
"""What a killed write left is older than this; a younger one may be of a verb that holds no lock."""

MOSTLY_DEAD: Final = 0.5
_VERSION: Final = re.compile(r"^(.*)-v(\d+)$")


@final
@dataclass(frozen=True)
class Rubbish:
    """What can go: the plan, and by kind how many and how many bytes."""

    plan: Plan
    kinds: dict[str, tuple[int, int]]

    @property
    def size_bytes(self) -> int:
        return sum(size for _, size in self.kinds.values())


def rubbish(workspace: Path, *, runs: int, pieces: bool = False, now: float | None = None) -> Rubbish:
    """What nobody needs who keeps the last `runs` runs of every name; `pieces` = all that is kept of sources, too."""
    store = Store(workspace / "store")
    graph = graph_of(store)
    names = {folder.name for folder in (workspace / "runs").glob("*") if folder.is_dir()}
    notes, objects = _unreachable(workspace, store, graph, runs, names)
    places = {
        "notes of stages": [store.root / "index" / key for key in notes],
        **{kind: [] for kind in sorted({graph.kinds.get(digest, "damaged") for digest in objects})},
        "left by killed writes": list(_leftovers(workspace, time.time() if now is None else now)),
        "kept of sources": _pieces(store.root / "pieces", names, everything=pieces),
        "kept of runs that are gone": [
            path
            for folder in (store.root / "marks", store.root / "uses", store.root / "pieces" / USED)
            for path in sorted(folder.glob("[!.]*"))
            if path.name.removesuffix(".json") not in names
        ],
    }
    for digest in objects:
        places[graph.kinds.get(digest, "damaged")].append(object_folder(workspace, digest))
    paths = [path for kind in list(places)[-3:] for path in places[kind]]
    plan = Plan(tuple(notes), tuple(objects), tuple(path.relative_to(workspace).as_posix() for path in paths))
    return Rubbish(plan, {kind: (len(found), sum(map(size_of, found))) for kind, found in places.items() if found})


def compact(workspace: Path) -> None:
    """Write packs of which runs use less than half anew, with what they use; the old ones are rubbish from then on.

    Raises:
        EnvironmentProblem: the disk refuses.
    """
    folder = workspace / "store" / "pieces"
    used = _used_pieces(folder, {path.name for path in (workspace / "runs").glob("*")})
    for name, index in indexes(folder):
        live = {key: place for key, place in index.items() if key in used}
        rows = sum(size for _, size, _ in live.values())
        frame = read_pack(folder, name) if live and len(live) < len(index) else None
        if frame is not None and (rows < MOSTLY_DEAD * frame.height or rows == frame.height == 0):
            moved, start = {}, 0
            for key, (_, size, facts) in live.items():
                moved[key] = (start, size, facts)
                start += size
            write_pack(folder, pl.concat([frame.slice(first, size) for first, size, _ in live.values()]), moved)
            (folder / f"{name}.json").unlink()  # half a pack, which is rubbish


def damaged(store: Store) -> Iterator[tuple[str, str]]:
    """(digest or stage key, what is wrong) of every artefact that is not what its name says, and of broken notes."""
    graph = graph_of(store)
    whole = set[str]()
    for folder in sorted((store.root / "objects").glob("*/*")):
        try:
            store.get(folder.name, KINDS[store.kind_of(folder.name)])
            whole.add(folder.name)
        except (DecoctError, OSError, KeyError) as error:
            yield folder.name, str(error) if isinstance(error, DecoctError) else "cannot be read"
    for path in sorted((store.root / "index").iterdir()):
        note = graph.notes.get(path.name)
        missing = 0 if note is None else len(set(note.digests) - whole)
        if note is None or missing:
            yield path.name, "a note that cannot be read" if note is None else f"a note of {missing} artefacts not here"


def _unreachable(
    workspace: Path, store: Store, graph: Graph, runs: int, names: set[str]
) -> tuple[list[str], list[str]]:
    """Stage keys and artefacts that nothing leads to."""
    uses = {name: keys for name, (keys, _) in last_uses(store, runs).items() if name in names}
    kept = set(graph.notes) if not uses else {key for keys in uses.values() for key in keys if key in graph.notes}
    digests = {digest for key in kept for digest in graph.notes[key].digests}
    digests |= {digest for digest, kind in graph.kinds.items() if kind == ReleaseRecord.__name__
                and store.get(digest, ReleaseRecord).name in _bundles(workspace)}  # fmt: skip
    digests = graph.ancestors(digests)
    kept |= {key for key, note in graph.notes.items() if digests.issuperset(note.digests)}
    digests |= {digest for key in kept for digest in graph.notes[key].digests}
    there = {folder.name for folder in (store.root / "objects").glob("*/*")}
    return sorted(set(graph.notes) - kept), sorted(there - digests)


def _bundles(workspace: Path) -> set[str]:
    """The newest release of every name, and every proposal."""
    newest: dict[str, tuple[int, str]] = {}
    for path in (workspace / RELEASES).glob("[!.]*"):
        found = _VERSION.match(path.name)
        if found:
            newest[found[1]] = max(newest.get(found[1], (0, "")), (int(found[2]), path.name))
    return {name for _, name in newest.values()} | {path.name for path in (workspace / PROPOSALS).glob("[!.]*")}


def _leftovers(workspace: Path, now: float) -> Iterator[Path]:
    """Drafts and staged folders that nobody will rename any more."""
    folders = [workspace, *(path for path in sorted(workspace.glob("*")) if path.is_dir() and path.name != "prefect")]
    folders += [path for path in (*(workspace / "runs").glob("*"), *(workspace / "store").glob("*")) if path.is_dir()]
    for folder in folders:
        for path in sorted(folder.iterdir()):
            draft = path.name.startswith(".") and path.name.endswith((".new", ".draft"))
            if (draft or folder == workspace / "store" / "tmp") and path.lstat().st_mtime < now - OLD_SECONDS:
                yield path


def _pieces(folder: Path, names: set[str], *, everything: bool) -> list[Path]:
    """Packs of which no run uses anything, and halves of packs."""
    used = _used_pieces(folder, names)
    whole = dict(indexes(folder))
    gone, elsewhere = list[str](), set[str]()
    for name in sorted(whole, key=lambda name: (-len(whole[name]), name)):
        needed = used.intersection(whole[name]) - elsewhere
        elsewhere |= needed
        if everything or not needed:
            gone.append(name)
    paths = [folder / f"{name}{end}" for name in gone for end in (".json", ".arrow")]
    halves = (path for path in sorted(folder.glob("*.*")) if path.suffix in (".json", ".arrow"))
    return paths + [path for path in halves if path.stem not in whole]


def _used_pieces(folder: Path, names: set[str]) -> set[str]:
    used = [path for path in (folder / USED).glob("[!.]*") if path.name in names]
    return {key for path in used for key in path.read_text(encoding="ascii", errors="replace").split("\n")}
