"""What came from what in a store: notes of stages, and the parents that artefacts name themselves."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, final

from pipeline.core.errors import DataError
from pipeline.store import BEGINS, USES, Store

HOLDS_PEOPLE: Final = "Cohort"
"""The kind whose artefacts hold ids; all others came from one of it."""


@final
@dataclass(frozen=True)
class Note:
    """What a stage made; `parents` None = a note of an earlier version, which does not say."""

    digests: tuple[str, ...]
    parents: tuple[str, ...] | None


@final
@dataclass(frozen=True, repr=False)
class Graph:
    """All notes by stage key, all artefacts with kind and the parents that they name."""

    notes: Mapping[str, Note]
    kinds: Mapping[str, str]
    parents: Mapping[str, tuple[str, ...]]
    unread: frozenset[str]  # artefacts that cannot be read: nobody can say what they hold

    def descendants(self, digests: Iterable[str]) -> tuple[set[str], set[str]]:
        """Artefacts and stage keys that came from any of `digests`, those included.

        A note that does not say what it came from, and whose artefacts do not either, counts as one of them.
        """
        found, keys = set(digests), set[str]()
        if not found:
            return found, keys
        grown = True
        while grown:
            size = len(found) + len(keys)
            found |= {digest for digest, parents in self.parents.items() if not found.isdisjoint(parents)}
            for key, note in self.notes.items():
                if self._came_from(note, found):
                    keys.add(key)
                    found.update(note.digests)
            grown = len(found) + len(keys) > size
        return found, keys

    def ancestors(self, digests: Iterable[str]) -> set[str]:
        """Artefacts that any of `digests` came from, those included."""
        made_from: dict[str, set[str]] = {digest: set(parents) for digest, parents in self.parents.items()}
        for note in self.notes.values():
            for digest in note.digests:
                made_from.setdefault(digest, set()).update(note.parents or ())
        found, waiting = set[str](), list(digests)
        while waiting:
            digest = waiting.pop()
            if digest not in found:
                found.add(digest)
                waiting += made_from.get(digest, ())
        return found

    def _came_from(self, note: Note, found: set[str]) -> bool:
        own = [digest for digest in note.digests if self.kinds.get(digest) == HOLDS_PEOPLE]
        if own:  # read from a source: its parents are no artefacts
            return not found.isdisjoint(own)
        if note.parents is not None:
            return not found.isdisjoint(note.parents)
        told = [self.parents[digest] for digest in note.digests if digest in self.parents]
        return not told or any(not found.isdisjoint(parents) for parents in told)


def graph_of(store: Store) -> Graph:
    """The graph of a store; damaged artefacts are named, a damaged note is as good as none."""
    kinds: dict[str, str] = {}
    parents: dict[str, tuple[str, ...]] = {}
    unread: set[str] = set()
    for folder in sorted((store.root / "objects").glob("*/*")):
        try:
            head = store.describe(folder.name)
            kind, told = str(head["kind"]), head["meta"].get("provenance")
        except (DataError, OSError, KeyError, TypeError, AttributeError):
            unread.add(folder.name)
            continue
        kinds[folder.name] = kind
        if isinstance(told, Mapping) and told.get("parents"):
            parents[folder.name] = tuple(told["parents"])
    return Graph(_notes(store), kinds, parents, frozenset(unread))


def last_uses(store: Store, runs: int) -> dict[str, tuple[set[str], int]]:
    """By run: the stage keys of its last `runs` runs, and how many runs are on record."""
    found = {}
    for path in sorted((store.root / USES).glob("*")):
        lines = path.read_text(encoding="ascii", errors="replace").splitlines()
        begins = [number for number, line in enumerate(lines) if line == BEGINS]
        start = begins[-runs] if runs and len(begins) >= runs else (len(lines) if not runs else 0)
        found[path.name] = ({line for line in lines[start:] if line != BEGINS}, len(begins))
    return found


def _notes(store: Store) -> dict[str, Note]:
    notes = {}
    for path in sorted((store.root / "index").iterdir()):
        try:
            raw = json.loads(path.read_bytes())
            parents = tuple(raw["parents"]) if "parents" in raw else None
            notes[path.name] = Note(tuple(raw["digests"]), parents)
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return notes
