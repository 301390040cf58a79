"""The audit on real stays (PhysioNet 2012, embedded): known breaks are found, strangers pass."""

from __future__ import annotations

import numpy as np
import pytest

from encoders.projection import RandomProjectionEncoder
from encoders.quantum import QuantumEncoder
from pipeline.audit.aligned_pairs import AlignedPairs, Knowledge
from pipeline.audit.inversion import KnownKeyInversion
from pipeline.audit.membership import Membership
from pipeline.audit.near_copies import NearCopies
from pipeline.audit.scene import CondensedScene, EncodingScene
from pipeline.core.secrets import Secret
from pipeline.core.types import CondensedSet, EncodedCohort, Provenance, Split
from pipeline.ingest.cohort import build_cohort
from pipeline.ingest.mapping import load_mapping
from pipeline.ingest.readers import read_source
from pipeline.ingest.scaling import prepare
from pipeline.ingest.splits import keyed_hash_split

ENCODERS = {"quantum": QuantumEncoder(), "projection": RandomProjectionEncoder()}
KEY = Secret(bytes(range(32)), "encoder")


@pytest.fixture(scope="module")
def prepared() -> EncodedCohort:
    tables = read_source("embedded", sets=("a",), max_stays=1500)
    ids = tables.stays["subject_id"].to_numpy().astype(str)
    split = keyed_hash_split(ids, Secret(bytes(32), "split"), 0.2, 0.4)
    cohort, _ = build_cohort(tables, load_mapping("physionet2012"), step_hours=1.0, n_steps=48, tasks=(), split=split)
    return prepare(cohort, imputation="carry_forward", scaling="public_ranges", observed="drop")


@pytest.fixture(scope="module", params=sorted(ENCODERS))
def encoding(request: pytest.FixtureRequest, prepared: EncodedCohort) -> EncodingScene:
    fitted = ENCODERS[request.param].fit(prepared, KEY)
    targets = prepared.part(Split.TRAIN)
    return EncodingScene(
        artefact=request.param,
        artefact_digest="0" * 64,
        encode=fitted.encode_array,
        own=prepared.part(Split.TUNING).features,
        targets=targets.features,
        encoded_targets=fitted.encode_array(targets.features),
        target_subjects=targets.subject_index,
        channels=prepared.channels,
        window_steps=4,
        max_targets=150,
        n_bootstrap=200,
    )


def test_every_recipient_recovers_the_series(encoding: EncodingScene) -> None:
    """R2 of at least .95 with the key and own patients, or the audit is broken."""
    attack = KnownKeyInversion()
    assert attack.unsupported(encoding) is None
    (result,) = attack.run(encoding, 0)
    assert result.rate >= 0.95
    assert result.detail["controls_held"]


def test_few_pairs_give_the_encoding_away(encoding: EncodingScene) -> None:
    """A projection from 4 independent windows, a circuit from at most 100, without the key."""
    needed = {"projection": (4, 0.99), "quantum": (100, 0.95)}
    k, bar = needed[encoding.artefact]
    attack = AlignedPairs(ladder=(Knowledge(k, "window", "independent"),))
    assert attack.unsupported(encoding) is None
    (result,) = attack.run(encoding, 0)
    assert result.rate >= bar
    assert result.detail["distinct_pairs"] <= k
    assert result.detail["controls_held"]


def scene_of(prepared: EncodedCohort, samples: np.ndarray) -> CondensedScene:
    members, holdout = prepared.part(Split.TRAIN), prepared.part(Split.HELD_OUT)
    condensed = CondensedSet(
        features=samples,
        labels=np.zeros((len(samples), 1), np.float32),
        channels=prepared.channels,
        tasks=prepared.tasks[:1],
        step_hours=prepared.step_hours,
        transforms=prepared.transforms,
        method="test",
        starts_from_records=True,
        guarantee=None,
        provenance=Provenance("test"),
    )
    return CondensedScene(
        "set",
        "0" * 64,
        condensed,
        members.features,
        holdout.features,
        members.subject_index,
        holdout.subject_index,
    )


def test_random_real_stays_are_caught(prepared: EncodedCohort) -> None:
    stays = prepared.part(Split.TRAIN).features[:80]
    scene = scene_of(prepared, stays)
    copies = NearCopies().run(scene, 0)[0]
    assert copies.rate >= 76  # stays with hardly a measurement have twins and identify nobody
    assert copies.detail["controls_held"]
    rate = Membership().run(scene, 0)[1]
    assert rate.low > rate.detail["fpr"]
    assert rate.detail["epsilon_lower_bound"] > 0.5


def test_stays_of_strangers_pass(prepared: EncodedCohort) -> None:
    tuning = prepared.part(Split.TUNING).features[:80]
    scene = scene_of(prepared, tuning)
    copies = NearCopies().run(scene, 0)[0]
    assert copies.rate == 0
    auroc = Membership().run(scene, 0)[0]
    assert auroc.detail["auroc_p_value"] > 0.001
    assert auroc.detail["controls_held"]
