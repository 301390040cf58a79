"""An audit makes once what its sets have in common, and makes nothing again that the store has of the same."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from flows.stages.attacks.kept import PIECE, RESULTS
from flows.stages.attacks.scenes import SceneOf, attack_all
from flows.stages.condense import condense
from flows.stages.encode import encode
from flows.stages.ingest import ingest
from flows.stages.prepare import prepare
from flows.workspace.job import Job, new_job
from flows.workspace.removing.graph import graph_of
from pipeline.audit.encodings.key_search import KeySearch
from pipeline.audit.games import release_game
from pipeline.audit.games.canary_subjects import CanarySubjects
from pipeline.audit.scene import LeakageAttack
from pipeline.audit.sets.membership import Membership
from pipeline.audit.sets.subgroups import SubgroupMembership
from pipeline.core.codec import record_digest
from pipeline.core.config import Config
from pipeline.core.types import CondensedSet
from pipeline.store import Made

ATTACKS: tuple[LeakageAttack, ...] = (
    KeySearch(numbers=4),
    Membership(),
    SubgroupMembership(),
    CanarySubjects(rounds=8),
)
CONTROLS = 4  # of density_membership and subgroup_membership, two each
SETS = {
    "private": {"kind": "private_moments", "n_per_class": 10},
    "centroids": {"kind": "centroids", "n_per_class": 10, "tasks": "first"},
    "more": {"kind": "random_real", "n_per_class": 10, "tasks": "first"},
}


@pytest.fixture
def job(
    tmp_path: Path,
    small_job: Callable[..., Config],
    fixed_keys: Callable[[Path], None],
    monkeypatch: pytest.MonkeyPatch,
) -> Job:
    monkeypatch.setattr(release_game, "LEARNING_ROUNDS", 4)
    fixed_keys(tmp_path)
    tables = {name: {"input": "raw", **table} for name, table in SETS.items()}
    encoders = {"raw": {"kind": "identity"}, "rp": {"kind": "random_projection"}}
    source = {"kind": "embedded", "sets": ["a"], "max_stays": 900}
    return new_job(small_job(tmp_path, source=source, encode=encoders, condense=tables, group=None), resume=True)


def attacked(job: Job, *names: str) -> list[SceneOf]:
    prepared = prepare(job, ingest(job))
    raw, rp = (encode(job, name, prepared) for name in ("raw", "rp"))
    found = [SceneOf("encoding", "rp", rp.first, rp, prepared)]
    for name in names:
        made = condense(job, name, raw, None)
        found.append(SceneOf("set", name, made.first, made, raw))
    return found


def notes(job: Job) -> Counter[str]:
    return Counter(link.stage for link in job.store.links() if link.stage in (PIECE, RESULTS))


def digests(job: Job, told: list[SceneOf], attacks: tuple[LeakageAttack, ...] = ATTACKS) -> list[str]:
    return [record_digest(report) for report in attack_all(job, told, 5, attacks)]


def test_sets_of_one_source_share_their_controls_and_nothing_is_made_twice(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = attacked(job, "private", "centroids")
    first = digests(job, told)
    assert notes(job) == {PIECE: CONTROLS + 1, RESULTS: 1 + 2 * 3}
    assert digests(dataclasses.replace(job, resume=False), told) == first  # all of it made anew: the same bytes
    assert notes(job) == {PIECE: CONTROLS + 1, RESULTS: 1 + 2 * 3}

    def never(*_: object, **__: object) -> None:
        raise AssertionError("it was made again")

    for attack in ATTACKS:
        monkeypatch.setattr(type(attack), "run", never)
    assert digests(job, told) == first
    monkeypatch.undo()
    monkeypatch.setattr(release_game, "play", never)  # and one more set finds the controls of the others
    assert len(digests(job, [*told, *attacked(job, "more")[1:]])) == 4
    assert notes(job) == {PIECE: CONTROLS + 1, RESULTS: 1 + 3 * 3}
    assert digests(job, told) == first


def test_whoever_is_withdrawn_takes_along_what_was_made_of_him(job: Job) -> None:
    """All but the game, into which no stay went, came from the source, and says so."""
    told = attacked(job, "private")
    digests(job, told)
    graph = graph_of(job.store)
    cohort = next(digest for digest, kind in graph.kinds.items() if kind == "Cohort")
    gone = graph.descendants([cohort])[1]
    left = [link for link in job.store.links() if link.stage in (PIECE, RESULTS) and link.key not in gone]
    assert [link.stage for link in left] == [PIECE]


def test_a_note_that_was_not_written_under_the_key_is_not_believed(job: Job) -> None:
    told = attacked(job, "centroids")
    first = digests(job, told, (Membership(),))
    for link in job.store.links():
        if link.stage in (PIECE, RESULTS):
            path = job.store.root / "index" / link.key
            path.write_bytes(path.read_bytes().replace(b'"seconds": ', b'"seconds": 1'))
    assert notes(job) == {}
    assert digests(job, told, (Membership(),)) == first
    assert notes(job) == {PIECE: 2, RESULTS: 1}


def test_another_seed_or_set_finds_nothing(job: Job) -> None:
    told = attacked(job, "centroids")
    attack_all(job, told, 5, (Membership(),))
    attack_all(job, told, 6, (Membership(),))
    assert notes(job) == {PIECE: 4, RESULTS: 2}
    samples = job.only(told[1].made, CondensedSet)
    half = np.arange(len(samples.features)) % 2 == 0
    fewer = dataclasses.replace(samples, features=samples.features[half], labels=samples.labels[half])
    other = Made((job.store.put(fewer),), 0.0, reused=False)
    attack_all(job, [SceneOf("set", "centroids", other.first, other, told[1].source)], 5, (Membership(),))
    assert notes(job) == {PIECE: 4 + 1, RESULTS: 3}  # the members themselves are the same; others as many as samples
