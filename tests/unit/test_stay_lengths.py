"""Stays that end before the grid does: a channel says so, condensers keep it, models learn from real stays with it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from condensation.coresets import Centroids
from condensation.private.condenser import PrivateMoments
from pipeline.core.errors import ConfigError
from pipeline.core.keys.noise import NoiseSource
from pipeline.core.keys.secrets import Secret
from pipeline.core.protocols import Condenser
from pipeline.core.types import Cohort, EncodedCohort, Split
from pipeline.ingest.cohort.build import build_cohort
from pipeline.ingest.cohort.scaling import prepare
from pipeline.ingest.mapping.load import load_mapping
from pipeline.ingest.sources.readers import read_source
from pipeline.probes.panel import fit_predict
from pipeline.validation.contracts import check_encoded

N_STAYS, N_TRAIN = 2000, 1300


@pytest.fixture(scope="module")
def cut() -> Cohort:
    """Real stays, each cut after 12 to 48 hours."""
    built, _ = build_cohort(
        read_source("embedded", sets=("a",), max_stays=N_STAYS),
        load_mapping("physionet2012"),
        step_hours=1.0,
        n_steps=48,
        tasks=("in_hospital_death",),
        split=np.where(np.arange(N_STAYS) < N_TRAIN, Split.TRAIN, Split.HELD_OUT).astype(np.int8),
    )
    last = np.random.default_rng(0).integers(12, 49, N_STAYS)
    there = np.arange(48)[None, :, None] < last[:, None, None]
    return dataclasses.replace(
        built, values=np.where(there, built.values, np.float32(np.nan)), observed=built.observed & there
    )


@pytest.fixture(scope="module")
def encoded(cut: Cohort) -> EncodedCohort:
    return prepare(cut, lengths="mask")


def test_the_channel_ends_with_the_last_measurement_and_leaves_the_rest(cut: Cohort, encoded: EncodedCohort) -> None:
    assert encoded.channels[-1] == "valid"
    valid = encoded.features[:, :, -1]
    measured = cut.observed.any(axis=2)
    for stay in range(0, N_STAYS, 37):
        times = np.flatnonzero(measured[stay])
        expected = np.arange(48) <= (times[-1] if len(times) else -1)
        np.testing.assert_array_equal(valid[stay], expected)
    plain = prepare(cut)
    np.testing.assert_array_equal(encoded.features[:, :, :-1], plain.features)
    assert [step["kind"] for step in encoded.transforms] == [*(step["kind"] for step in plain.transforms), "lengths"]
    assert encoded.is_public_transform
    assert check_encoded(dataclasses.replace(encoded, split=(np.arange(N_STAYS) % 3).astype(np.int8))).success
    with_masks = prepare(cut, observed="encode", lengths="mask")
    np.testing.assert_array_equal(with_masks.features[:, :, -1], valid)
    np.testing.assert_array_equal(with_masks.features[:, :, -1 - len(cut.variables) : -1], cut.observed)
    with pytest.raises(ConfigError, match="lengths fill and mask"):
        prepare(cut, lengths="cut")  # type: ignore[arg-type]  # that is the point


@pytest.mark.parametrize(
    ("condenser", "at_least"), [(Centroids(), 0.70), (PrivateMoments(epsilon=4.0), 0.60)], ids=["centroids", "private"]
)
def test_condensed_stays_end_once_and_teach(encoded: EncodedCohort, condenser: Condenser, at_least: float) -> None:
    train, test = encoded.part(Split.TRAIN), encoded.part(Split.HELD_OUT)
    noise = NoiseSource(Secret(bytes(32), "noise"), "test")
    found = condenser.condense(
        train, n_per_class=40, seed=0, noise=noise, device="cpu", on_step=lambda step, steps, loss: None
    )
    valid = found.features[:, :, -1]
    assert valid.min() > -1e-6
    assert valid.max() < 1 + 1e-6
    assert np.diff(valid, axis=1).max() < 1e-6
    # the cuts are uniform over 12 to 48 hours: a third of the steps lies behind them
    assert 0.4 < valid.mean() < 0.9
    scores = fit_predict("logistic_regression", found.features, found.labels, test.features, epochs=1, seed=0)
    assert roc_auc_score(test.labels[:, 0], scores[:, 0]) > at_least
