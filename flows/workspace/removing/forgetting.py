"""A patient withdraws: on the list that every reading leaves out, and out of all that was made with them.

What goes: artefacts that came from a cohort holding one of them, those that cannot be read, as nobody can say whom they
hold, and what came from these; what was kept of their source, and in the folders of runs that used any of it everything
but the configuration and the log. What stays: the ledger, as what was spent stays spent; the audit log and the audits'
history, which say what was released; keyed marks, which name nobody; and bundles that have been released, which nobody
can call back.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

from flows.progress import say, steps
from flows.workspace.job import CONFIG_FILE
from flows.workspace.releases import PROPOSALS, RELEASES
from flows.workspace.removing.graph import HOLDS_PEOPLE, Graph, graph_of, last_uses
from flows.workspace.removing.purge import Plan, carry_out, finish_pending
from flows.workspace.removing.withdrawals import withdraw
from pipeline.core.errors import UsageError
from pipeline.core.types import Cohort, ReleaseRecord
from pipeline.ingest.kept.quarantine import FOLDER as QUARANTINE
from pipeline.ingest.withdrawn import Withdrawn
from pipeline.sharing.bundle.write import ReleaseNotes, bundle_name
from pipeline.sharing.trust.log import append_log, read_log
from pipeline.store import Store

PURGE: Final = "purge"
STAYS_IN_A_RUN: Final = frozenset({CONFIG_FILE, "log.jsonl"})
KEPT_OF_SOURCES: Final = ("pieces", "marks", "tmp")  # in tmp: what a killed process was about to make
ALL_RUNS: Final = 10**9


@final
@dataclass(frozen=True)
class Forgotten:
    """What a withdrawal did; counts, no ids."""

    asked: int
    new: int  # not on the list before
    not_found: int  # of those asked for, in no cohort of this workspace
    cohorts: int
    purged: dict[str, int]  # kind -> how many
    bytes_freed: int
    released: tuple[dict[str, Any], ...]  # bundle, and release = site/name/version as a revocation names it


def read_ids(lines: Iterable[str]) -> tuple[str, ...]:
    """Ids, one a line, as the cohort writes them.

    Raises:
        UsageError: there is none.
    """
    ids = tuple(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if not ids:
        raise UsageError("no id was given; a file or standard input holds one a line")
    return ids


def forget(workspace: Path, ids: tuple[str, ...]) -> Forgotten:
    """Withdraw subjects; the workspace's lock is held. Again with the same ids, it does what was left to do.

    Raises:
        EnvironmentProblem: the log or the list is damaged, or the disk refuses; the same command goes on from there.
    """
    store = Store(workspace / "store")
    with steps("finishing an earlier purge", "") as on_step:
        resumed = finish_pending(workspace, on_step)
    if resumed:
        say("  an earlier purge had been cut short; it is finished now")
    withdrawn, new = withdraw(workspace, ids)
    graph = graph_of(store)
    holding, seen = _cohorts_with(store, graph, withdrawn)
    objects, notes = graph.descendants(holding | graph.unread)
    objects &= set(graph.kinds) | graph.unread
    kept = {digest for key, note in graph.notes.items() if key not in notes for digest in note.digests}
    objects -= kept - holding - graph.unread  # the same content came from others, too
    released = _releases(workspace, store, graph, objects, notes)
    paths = [*_run_files(workspace, store, notes, bool(objects)), *_proposals(workspace, released)]
    paths += _kept_of_sources(workspace) if new or holding else []
    plan = Plan(tuple(sorted(notes)), tuple(sorted(objects)), tuple(paths))
    kinds = Counter(graph.kinds.get(digest, "damaged") for digest in objects)
    counts = dict(sorted(kinds.items())) | _files_by_kind(paths)
    freed = 0
    if plan:
        gone_names = " ".join(item["bundle"] for item in released if item["published"])
        append_log(workspace, PURGE, {"artefacts": len(objects), "files": len(paths), "releases": gone_names})
        with steps("purging", "") as on_step:
            freed = carry_out(workspace, plan, on_step)
    asked = {withdrawn.mark(name) for name in ids}
    published = tuple(item for item in released if item["published"])
    if resumed and not published:
        published = _told_before(workspace)
    return Forgotten(len(ids), new, len(asked - seen), len(holding), counts, freed, published)


def _cohorts_with(store: Store, graph: Graph, withdrawn: Withdrawn) -> tuple[set[str], set[str]]:
    """Cohorts that hold somebody on the list, and the marks of those that were found in any."""
    holding, seen = set[str](), set[str]()
    for digest in (name for name, kind in graph.kinds.items() if kind == HOLDS_PEOPLE):
        cohort = store.get(digest, Cohort)
        people = {withdrawn.mark(str(name)) for name in set(cohort.subject_ids.tolist())}
        found = people & withdrawn.marks
        seen |= found
        if found:
            holding.add(digest)
    return holding, seen


def _releases(workspace: Path, store: Store, graph: Graph, objects: set[str], notes: set[str]) -> list[dict[str, Any]]:
    """Bundles and proposals that came from what goes, with what they say of themselves."""
    found = []
    records = {digest for key in notes for digest in graph.notes[key].digests} | objects
    for digest in sorted(records):
        if graph.kinds.get(digest) != ReleaseRecord.__name__:
            continue
        record = store.get(digest, ReleaseRecord)
        for folder in (RELEASES, PROPOSALS):
            if (workspace / folder / record.name).exists():
                told = {"bundle": record.name, "published": folder == RELEASES}
                found.append(told | {"release": _revocable(workspace, record.name)})
    return found


def _told_before(workspace: Path) -> tuple[dict[str, Any], ...]:
    """The releases that the purge that was cut short had found."""
    lines = [entry for entry in read_log(workspace).entries if entry["what"] == PURGE]
    names = str(lines[-1]["releases"]).split() if lines else []
    return tuple({"bundle": name, "published": True, "release": _revocable(workspace, name)} for name in names)


def _revocable(workspace: Path, bundle: str) -> str:
    """site/name/version as the log's line about the proposal has them; the bundle's own name where there is none."""
    for entry in read_log(workspace).entries:
        if entry["what"] == "propose":
            notes = ReleaseNotes(str(entry["name"]), str(entry["site"]), int(entry["version"]), "")
            if bundle_name(notes) == bundle:
                return f"{entry['site']}/{entry['name']}/{entry['version']}"
    return bundle


def _run_files(workspace: Path, store: Store, notes: set[str], anything: bool) -> list[str]:
    """What the folders of runs hold besides configuration and log, where the run used anything that goes.

    Reports, looks at the data, checkpoints and shadow sets: exact figures and samples made with the person in.
    """
    uses = last_uses(store, ALL_RUNS)
    found = []
    for folder in sorted(path for path in (workspace / "runs").glob("*") if path.is_dir()):
        known = uses.get(folder.name)
        touched = anything if known is None or not known[0] else not notes.isdisjoint(known[0])
        if touched:
            found += [path for path in sorted(folder.iterdir()) if path.name not in STAYS_IN_A_RUN]
    return [path.relative_to(workspace).as_posix() for path in found]


def _proposals(workspace: Path, released: list[dict[str, Any]]) -> list[str]:
    """Proposals nobody has approved yet: they have not left, and do not any more."""
    return [f"{PROPOSALS}/{item['bundle']}" for item in released if not item["published"]]


def _kept_of_sources(workspace: Path) -> list[str]:
    """What readings keep of sources; the next one reads all of it again, less who has withdrawn."""
    folders = [*(workspace / "store" / name for name in KEPT_OF_SOURCES), workspace / QUARANTINE]
    found = [path for folder in folders if folder.is_dir() for path in sorted(folder.iterdir())]
    return [path.relative_to(workspace).as_posix() for path in found]


def _files_by_kind(paths: list[str]) -> dict[str, int]:
    names = {"runs": "files of runs", PROPOSALS: PROPOSALS, "store": "files kept of sources", QUARANTINE: QUARANTINE}
    counts = Counter(names[path.split("/", 1)[0]] for path in paths)
    return dict(sorted(counts.items()))
