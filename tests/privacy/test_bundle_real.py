"""Real stays, a real audit, the real gate: a private set may leave, stays that claim its guarantee may not."""

from __future__ import annotations

import dataclasses
import datetime
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sample_release import QUERY, behind
from sklearn.metrics import roc_auc_score

from condensation.private.condenser import PrivateMoments
from flows.workspace.accounted import with_queries
from pipeline.audit.run import audit, scan_bytes
from pipeline.audit.scene import BytesScene, CondensedScene
from pipeline.core.codec import record_digest
from pipeline.core.errors import LeakageError
from pipeline.core.keys.noise import NoiseSource
from pipeline.core.keys.secrets import Secret
from pipeline.core.seeds import generator
from pipeline.core.types import (
    Cohort,
    CondensedSet,
    EncodedCohort,
    LeakageReport,
    Split,
    UtilityReport,
    UtilityScore,
)
from pipeline.ingest.cohort.build import build_cohort
from pipeline.ingest.cohort.scaling import prepare, to_clinical_units
from pipeline.ingest.mapping.load import load_mapping
from pipeline.ingest.sources.embedded import read_embedded
from pipeline.ingest.splits import keyed_hash_split
from pipeline.sharing.bundle.write import ReleaseNotes, write_bundle
from pipeline.sharing.policy.gate import admit, decide, leaks
from pipeline.sharing.policy.load import load_policy
from pipeline.sharing.receive.received import receive
from pipeline.sharing.trust.keys import TrustRoot, author_signer, public_key

SITE = Secret(b"s" * 32, "split")
NOISE = Secret(b"n" * 32, "noise")
DEMO = load_policy("demo")
# a stand-in: training the panel belongs to other tests, here only its presence matters
UTILITY = UtilityReport((UtilityScore("set", "raw", "lr", "t", "auroc", 0.8, 0.7, 0.9, 0.0, 1, 99, 80),), 1, "none")


@pytest.fixture(scope="module")
def cohort() -> Cohort:
    tables = read_embedded(sets=("a",))  # fewer, and the two-sample attack cannot see what is planted
    split = keyed_hash_split(tables.stays["subject_id"].to_numpy(), SITE, 0.16, 0.20)
    mapping = load_mapping("physionet2012")
    return build_cohort(tables, mapping, step_hours=1.0, n_steps=48, tasks=("in_hospital_death",), split=split)[0]


@pytest.fixture(scope="module")
def prepared(cohort: Cohort) -> EncodedCohort:
    encoded = prepare(cohort)
    subjects = {"kind": "subjects", "known": False, "public": True}
    return dataclasses.replace(encoded, transforms=(subjects, *encoded.transforms))


@pytest.fixture(scope="module")
def private(prepared: EncodedCohort) -> CondensedSet:
    noise = NoiseSource(NOISE, "ab" * 32)
    made = PrivateMoments().condense(prepared.part(Split.TRAIN), n_per_class=40, seed=1, noise=noise)
    return dataclasses.replace(made, provenance=with_queries(made.provenance, [QUERY]))


def audited(artefact: CondensedSet, prepared: EncodedCohort) -> LeakageReport:
    members, others = prepared.part(Split.TRAIN), prepared.part(Split.HELD_OUT)
    scene = CondensedScene(
        artefact="set",
        artefact_digest=record_digest(artefact),
        condensed=artefact,
        members=members.features,
        holdout=others.features,
        member_subjects=members.subject_index,
        holdout_subjects=others.subject_index,
    )
    return audit([scene], seed=1)[0]


def test_a_private_set_leaves_is_clean_and_teaches(
    cohort: Cohort, prepared: EncodedCohort, private: CondensedSet, tmp_path: Path
) -> None:
    report = audited(private, prepared)
    decision = decide(DEMO, private, [report], UTILITY, behind(private))
    assert decision.verdict == "PASS", [reason for reason in decision.reasons if reason[0] != "PASS"]
    small = decide(load_policy("strict"), private, [report], UTILITY, behind(private))
    assert small.verdict == "INCONCLUSIVE"  # too few others for 1 % false alarms: strict does not guess

    def scan(files: dict[str, bytes]) -> None:
        scene = BytesScene("bundle", "0" * 64, files, cohort.stay_ids.tolist(), [SITE.reveal(), NOISE.reveal()])
        found = scan_bytes(scene, seed=1)
        assert found.controls_held
        assert [result.rate for result in found.results] == [0.0] * len(found.results)

    signer = author_signer(Secret(b"a" * 32, "author"))
    today = datetime.date(2026, 3, 1)
    bundle = write_bundle(
        admit(DEMO, decision, private, [report], UTILITY, behind(private)),
        tmp_path,
        signer=signer,
        notes=ReleaseNotes("set", "site", 1, "ODC-By-1.0"),
        issued=today,
        scan=scan,
    )
    got = receive(
        bundle,
        TrustRoot((public_key(signer, "Otto", site="site"),), 0, 0, {"demo": DEMO.digest}, expires="2100-01-01"),
        today=today,
    )
    assert got.features.shape == private.features.shape
    grid = np.round(private.features * 4096) / 4096  # of channels between -1 and 1
    np.testing.assert_array_equal(np.sort(got.features.ravel()), np.sort(grid.ravel()))
    assert got.condensed_set().guarantee == private.guarantee
    without_our_code(bundle, private, prepared)


def without_our_code(bundle: Path, private: CondensedSet, prepared: EncodedCohort) -> None:
    """The page's examples, run as they stand on this bundle: what they train tells real patients, units come back."""
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "receive-a-bundle.md").read_text(encoding="utf-8")
    section = page.partition("### Without our code")[2].partition("\n## ")[0]
    blocks = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    assert len(blocks) == 3
    names: dict[str, Any] = {}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for block in blocks:
            assert not re.search(r"pipeline|decoct", block)
            exec(block.replace("st-elsewhere-private-v1", str(bundle)).replace('"died"', '"in_hospital_death"'), names)
    test = prepared.part(Split.HELD_OUT)
    dead = test.labels[:, 0]
    flat = names["model"].predict_proba(test.features.reshape(len(dead), -1))[:, 1]
    with torch.no_grad():
        series = names["head"](names["gru"](torch.from_numpy(test.features))[0][:, -1])[:, 0].numpy()
    for scores in (flat, series):  # some 400 stays, about 55 deaths: the standard error of an AUROC of .5 is about .04
        assert roc_auc_score(dead, scores) > 0.5 + 2.5 * 0.04
    values, units = names["clinical"](private.features, names["facts"])
    np.testing.assert_allclose(
        values, to_clinical_units(private.features, private.channels, private.transforms), rtol=1e-4, atol=1e-3
    )
    assert units[private.channels.index("HR")] == "/min"


def test_real_stays_that_claim_the_guarantee_are_stopped_by_the_audit(
    prepared: EncodedCohort, private: CondensedSet
) -> None:
    """The paperwork is in order and wrong: only the attacks can tell, and they do."""
    train = prepared.part(Split.TRAIN)
    rows = generator(1, "liar").choice(len(train.features), 80, replace=False)
    liar = dataclasses.replace(private, features=train.features[rows], labels=train.labels[rows])
    report = audited(liar, prepared)
    decision = decide(DEMO, liar, [report], UTILITY, behind(liar))
    assert decision.verdict == "FAIL"
    assert leaks(decision)
    with pytest.raises(LeakageError, match="near_copies"):
        admit(DEMO, decision, liar, [report], UTILITY, behind(liar))


def test_one_verbatim_stay_among_eighty_samples_is_enough(prepared: EncodedCohort, private: CondensedSet) -> None:
    features = private.features.copy()
    features[17] = prepared.part(Split.TRAIN).features[5]
    liar = dataclasses.replace(private, features=features)
    assert decide(DEMO, liar, [audited(liar, prepared)], UTILITY, behind(liar)).verdict == "FAIL"
