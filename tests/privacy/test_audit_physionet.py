"""The audit on real stays (PhysioNet 2012, embedded): known breaks are found, strangers pass."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from encoders.projection import RandomProjectionEncoder
from encoders.quantum import QuantumEncoder
from pipeline.audit.encodings.aligned_pairs import AlignedPairs, Knowledge
from pipeline.audit.encodings.inversion import KnownKeyInversion
from pipeline.audit.encodings.missingness import MissingnessPattern
from pipeline.audit.scene import CondensedScene, EncodingScene, encoding_scene
from pipeline.audit.sets.membership import Membership
from pipeline.audit.sets.near_copies import NearCopies
from pipeline.core.keys.noise import NoiseSource
from pipeline.core.keys.secrets import Secret
from pipeline.core.protocols import Encoder
from pipeline.core.types import Cohort, CondensedSet, EncodedCohort, Provenance, Split
from pipeline.ingest.cohort.build import build_cohort
from pipeline.ingest.cohort.scaling import prepare
from pipeline.ingest.mapping.load import load_mapping
from pipeline.ingest.sources.readers import read_source
from pipeline.ingest.splits import keyed_hash_split

ENCODERS = {"quantum": QuantumEncoder(), "projection": RandomProjectionEncoder()}
KEY = Secret(bytes(range(32)), "encoder")


@pytest.fixture(scope="module")
def cohort() -> Cohort:
    tables = read_source("embedded", sets=("a",), max_stays=1500)
    ids = tables.stays["subject_id"].to_numpy().astype(str)
    split = keyed_hash_split(ids, Secret(bytes(32), "split"), 0.2, 0.4)
    return build_cohort(tables, load_mapping("physionet2012"), step_hours=1.0, n_steps=48, tasks=(), split=split)[0]


@pytest.fixture(scope="module")
def prepared(cohort: Cohort) -> EncodedCohort:
    return prepare(cohort, imputation="carry_forward", scaling="public_ranges", observed="drop")


def scene_with(encoder: Encoder, prepared: EncodedCohort, cohort: Cohort, surrogates: int = 0) -> EncodingScene:
    fitted = encoder.fit(prepared, KEY)
    others = [encoder.fit(prepared, Secret(bytes([100 + i] * 32), "encoder")) for i in range(surrogates)]
    return encoding_scene(
        "encoded",
        "0" * 64,
        prepared=prepared,
        encoded=fitted.encode(prepared, NoiseSource(KEY, "test")),
        encode=fitted.encode_array,
        spec=fitted.public_spec(),
        observed=cohort.observed,
        surrogates=[other.encode_array for other in others],
        max_targets=150,
        n_bootstrap=200,
    )


@pytest.fixture(scope="module", params=sorted(ENCODERS))
def encoding(request: pytest.FixtureRequest, prepared: EncodedCohort, cohort: Cohort) -> EncodingScene:
    scene = scene_with(ENCODERS[request.param], prepared, cohort)
    return dataclasses.replace(scene, artefact=request.param)


def test_every_recipient_recovers_the_series(encoding: EncodingScene) -> None:
    """R2 of at least .95 with the key and own patients, or the audit is broken."""
    attack = KnownKeyInversion()
    assert attack.unsupported(encoding) is None
    (result,) = attack.run(encoding, 0)
    assert result.rate >= 0.95
    assert result.controls_held


def test_few_pairs_give_the_encoding_away(encoding: EncodingScene) -> None:
    """A projection from 4 independent windows, a circuit from at most 100, without the key."""
    needed = {"projection": (4, 0.99), "quantum": (100, 0.95)}
    k, bar = needed[encoding.artefact]
    attack = AlignedPairs(ladder=(Knowledge(k, "window", "independent"),))
    assert attack.unsupported(encoding) is None
    (result,) = attack.run(encoding, 0)
    assert result.rate >= bar
    assert result.detail["distinct_pairs"] <= k
    assert result.controls_held


def test_two_pairs_say_much_about_a_public_circuit(prepared: EncodedCohort, cohort: Cohort) -> None:
    """Eight independent windows give the default circuit's map; before its code was used they gave nothing."""
    attack = AlignedPairs(ladder=(Knowledge(2, "window", "random"), Knowledge(8, "window", "independent")))
    scene = scene_with(QuantumEncoder(), prepared, cohort, surrogates=6)
    two, eight = attack.run(scene, 0)
    assert eight.rate >= 0.95
    assert eight.rate > attack.run(dataclasses.replace(scene, surrogates=()), 0)[1].rate + 0.3
    assert two.rate > 0.3
    assert two.controls_held
    assert eight.controls_held


@pytest.mark.parametrize(("mode", "least"), [("drop", 0.85), ("encode", 0.99), ("release", 1.0)])
def test_the_pattern_of_measurements_is_told_whatever_is_done_with_it(cohort: Cohort, mode: Any, least: float) -> None:
    scene = scene_with(QuantumEncoder(), prepare(cohort, observed=mode), cohort)
    attack = MissingnessPattern()
    assert attack.unsupported(scene) is None
    results = attack.run(scene, 0)
    assert max(result.rate for result in results) >= least
    assert all(result.controls_held for result in results)


def test_noise_is_reckoned_with(prepared: EncodedCohort, cohort: Cohort) -> None:
    """Averaging and the prior recover much more than the exact inverse does, and less than without noise."""
    (result,) = KnownKeyInversion().run(scene_with(QuantumEncoder(noise_sd=0.1), prepared, cohort), 0)
    assert 0.3 < result.rate < 0.95
    assert result.rate > result.detail["r2_by_method"]["gauss-newton"] + 0.2
    assert result.controls_held


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
    assert copies.controls_held
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
    assert auroc.controls_held
