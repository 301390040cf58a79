"""A whole `decoct release` under the strict policy, and what an editor of the workspace without its keys can do to it.

The auditor is a small one of this file's own, which counts samples that equal a stay: what is tested is which artefact
is audited, judged and signed, not how well attacks attack.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flows import run as road
from flows.stages.attacks.scenes import SceneOf
from flows.workspace.job import Job, new_job
from pipeline.core.config import Config, parse_config
from pipeline.core.types import (
    AttackResult,
    CondensedSet,
    EncodedCohort,
    GateDecision,
    LeakageReport,
    Provenance,
    ReleaseRecord,
)
from pipeline.sharing.layout import PAYLOAD
from pipeline.store import Made

pytestmark = pytest.mark.xdist_group("decided")
FIGURES = (
    ("near_copies", "count", 0.0),
    ("density_membership", "auroc", 0.55),
    ("density_membership", "tpr_at_1pct_fpr", 0.03),
)
Road = dict[str, Made[Any]]


def told(plan: dict[str, Any], workspace: Path) -> Config:
    return parse_config({**plan, "workspace": str(workspace)}, "the test's configuration", workspace)


PLAN: dict[str, Any] = {
    "name": "decided",
    "source": {"kind": "embedded", "sets": ["a"], "max_stays": 500},
    "cohort": {"tasks": ["in_hospital_death"], "n_steps": 6, "step_hours": 8},
    "encode": {"raw": {"kind": "identity"}},
    "condense": {"private": {"kind": "private_moments", "n_per_class": 20}},
    "utility": {"models": ["logistic_regression"], "n_seeds": 1, "n_random_draws": 1},
    "release": {"artefact": "private", "policy": "strict", "site": "test site", "licence": "ODbL-1.0"},
}


def small_audit(job: Job, attacked: Sequence[SceneOf], seed: int, attacks: object = None) -> tuple[LeakageReport, ...]:
    """Samples of a set that are a stay's own series, and two figures within the strict limits."""
    reports = []
    for scene in attacked:  # the identity's encoding is none
        stays = {row.tobytes() for row in job.store.get(scene.source.first, EncodedCohort).features}
        copies = sum(row.tobytes() in stays for row in job.store.get(scene.made.first, CondensedSet).features)
        results = tuple(
            AttackResult(
                *(name, "T6", scene.name, what, high / 2 + copies * (what == "count")),
                *(copies * (what == "count"), high + copies * (what == "count"), 500, 0.0, 1.0, 1.0),
                *(True, "s", True, True, False, None),
            )
            for name, what, high in FIGURES
        )
        reports.append(LeakageReport(scene.name, scene.digest, results, (), True, Provenance("audit")))
    return tuple(reports)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, fixed_keys: Callable[[Path], None]) -> Path:
    """A workspace with one proposal."""
    workspace = tmp_path_factory.mktemp("site")
    fixed_keys(workspace)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("flows.stages.audit.attack_all", small_audit)
        road.walk_until(new_job(told(PLAN, workspace)), "release")
    return workspace


@pytest.fixture
def copy(site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("flows.stages.audit.attack_all", small_audit)
    return Path(shutil.copytree(site, tmp_path / "site"))


def resumed(workspace: Path, **changes: Any) -> tuple[Job, Road]:
    """`decoct release run.toml --resume`."""
    job = new_job(told({**PLAN, **changes}, workspace), resume=True)
    return job, road.walk_until(job, "release")


def note(workspace: Path, stage: str) -> Path:
    """Where the store notes what the stage made."""
    notes = (workspace / "store" / "index").iterdir()
    (found,) = [path for path in notes if json.loads(path.read_text()).get("stage") == stage]
    return found


def point(path: Path, digests: Sequence[str]) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), "digests": list(digests)}))


def bundles(workspace: Path) -> dict[str, bytes]:
    return {file.parent.name: file.read_bytes() for file in workspace.glob(f"[pr]*s/*/{PAYLOAD}")}


def test_what_nobody_touched_is_found_again(copy: Path) -> None:
    before = bundles(copy)
    job, made = resumed(copy)
    assert job.only(made["decide"], GateDecision).verdict == "PASS"
    assert list(before) == [job.only(made["release"], ReleaseRecord).name] == ["test-site-private-v1"]
    assert all(made[stage].reused for stage in ("condense private", "audit", "decide", "release"))
    assert bundles(copy) == before


def forged(job: Job, made: Road) -> CondensedSet:
    """The true set with forty real stays for its samples: method, guarantee and queries are the true ones."""
    honest = job.only(made["condense private"], CondensedSet)
    stays = job.only(made["encode raw"], EncodedCohort)
    rows = slice(0, len(honest.features))
    return dataclasses.replace(honest, features=stays.features[rows], labels=np.nan_to_num(stays.labels[rows]))


def test_verbatim_patients_under_forged_notes_are_never_released(copy: Path) -> None:
    """The red team's walk: set, condense's note, release; then yesterday's report, the audit's note, release again."""
    before = bundles(copy)
    job, made = resumed(copy)
    curve, report = made["condense private"].digests[1], job.only(made["audit"], LeakageReport)
    digest = job.store.put(forged(job, made))
    point(note(copy, "condense"), [digest, curve])
    _, again = resumed(copy)
    assert again["condense private"].digests == made["condense private"].digests
    point(note(copy, "condense"), [digest, curve])
    copied = job.store.put(dataclasses.replace(report, artefact_digest=digest))
    point(note(copy, "audit"), [copied])
    point(note(copy, "decide"), [job.store.put(GateDecision("PASS", "strict", "0" * 64, ()))])
    second, again = resumed(copy)
    assert again["condense private"].digests == made["condense private"].digests
    assert again["audit"].digests == made["audit"].digests
    assert second.only(again["decide"], GateDecision) == job.only(made["decide"], GateDecision)
    assert bundles(copy) == before
    rows = [row.tobytes() for row in forged(job, made).features]
    assert not any(row in data for data in bundles(copy).values() for row in rows)


def test_even_under_a_note_of_the_sites_own_the_audit_and_the_ledger_stand(copy: Path) -> None:
    """Who holds the store's key as well still has the audit against him, and with a set of other noise the ledger."""
    job, made = resumed(copy)
    key = note(copy, "condense").name
    curve = made["condense private"].digests[1]
    verbatim = forged(job, made)
    untold = dataclasses.replace(verbatim.provenance, config={"kind": "private_moments"})
    for artefact, verdict in (
        (verbatim, "above the limit"),
        (
            dataclasses.replace(job.only(made["condense private"], CondensedSet), provenance=untold),
            "nothing was reserved",
        ),
    ):
        job.store.remember(key, Made((job.store.put(artefact), curve), 1.0, reused=False), stage="condense")
        with pytest.raises(Exception, match=verdict):
            resumed(copy)
    assert list(bundles(copy)) == ["test-site-private-v1"]
