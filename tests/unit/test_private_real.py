"""The private condenser on real stays: what it releases still tells who dies, and shuffled labels do not."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from condensation.private.condenser import PrivateMoments
from condensation.private.feature_map import from_description
from pipeline.core.keys.noise import NoiseSource
from pipeline.core.keys.secrets import Secret
from pipeline.core.types import EncodedCohort, Split
from pipeline.ingest.cohort.build import build_cohort
from pipeline.ingest.cohort.scaling import prepare
from pipeline.ingest.mapping.load import load_mapping
from pipeline.ingest.sources.readers import read_source

N_STAYS, N_TRAIN = 4000, 2500


@pytest.fixture(scope="module")
def encoded() -> EncodedCohort:
    split = np.where(np.arange(N_STAYS) < N_TRAIN, Split.TRAIN, Split.HELD_OUT).astype(np.int8)
    cohort, _ = build_cohort(
        read_source("embedded", sets=("a",)),
        load_mapping("physionet2012"),
        step_hours=1.0,
        n_steps=48,
        tasks=("in_hospital_death",),
        split=split,
    )
    return prepare(cohort)


def auroc(train: EncodedCohort, test: EncodedCohort, draw: int) -> float:
    """A linear fit of the soft labels of 400 samples at epsilon 1, judged on real stays."""
    noise = NoiseSource(Secret(draw.to_bytes(32, "little"), "noise"), "test")
    found = PrivateMoments().condense(train, n_per_class=200, seed=draw, noise=noise)
    assert found.guarantee is not None
    phi = from_description(
        {"kind": "late_level_and_trend", "version": 1, "n_steps": 48, "n_channels": 44, "range": [0.0, 1.0]}
    )
    x = phi.features(found.features)
    logits = np.log(found.labels[:, 0] / (1 - found.labels[:, 0]))
    weights = np.linalg.solve(
        np.cov(x.T) + 1e-4 * np.eye(x.shape[1]), (x - x.mean(0)).T @ (logits - logits.mean()) / len(x)
    )
    return float(roc_auc_score(test.labels[:, 0], phi.features(test.features) @ weights))


def test_a_score_learnt_from_private_samples_ranks_real_stays(encoded: EncodedCohort) -> None:
    train, test = encoded.part(Split.TRAIN), encoded.part(Split.HELD_OUT)
    assert test.labels.shape == (N_STAYS - N_TRAIN, 1)
    real = [auroc(train, test, draw) for draw in range(3)]
    # about 200 deaths among 1,500 stays: the standard error of an AUROC of .5 is about .022
    assert np.mean(real) > 0.5 + 8 * 0.022
    shuffled = dataclasses.replace(train, labels=np.random.default_rng(0).permutation(train.labels))
    assert np.mean([auroc(shuffled, test, draw) for draw in range(3)]) < np.mean(real) - 0.1
