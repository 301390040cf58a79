"""Condensing again for the audit: the set's own seed gives the set, other seeds and stays give others."""

from __future__ import annotations

import numpy as np

from condensation.coresets import Centroids as KMeans
from flows.stages.attacks.shadows import condenses_again
from pipeline.audit.sets.successive import OWN_SEED
from pipeline.core.config import condense_table
from pipeline.core.keys.noise import NoiseSource
from pipeline.core.keys.secrets import Secret
from pipeline.core.protocols import ignore_step
from pipeline.core.types import EncodedCohort, Provenance, Task


def cohort() -> EncodedCohort:
    rng = np.random.default_rng(0)
    return EncodedCohort(
        features=rng.uniform(size=(80, 6, 3)).astype(np.float32),
        labels=(np.arange(80)[:, None] % 2 * np.ones((1, 2))).astype(np.float32),
        subject_index=np.arange(80, dtype=np.int32),
        split=np.zeros(80, np.int8),
        channels=("a", "b", "c"),
        tasks=(Task("death"), Task("los")),
        step_hours=1.0,
        transforms=({"kind": "public_ranges", "public": True, "low": 0.0, "high": 1.0},),
        provenance=Provenance("test"),
    )


def test_the_sets_own_seed_gives_the_set() -> None:
    encoded = cohort()
    first = encoded.tasks[:1]
    one_task = EncodedCohort(**{**vars(encoded), "labels": encoded.labels[:, :1], "tasks": first})
    noise = NoiseSource(Secret(bytes(32), "noise"), "test")
    made = KMeans().condense(one_task, n_per_class=5, seed=7, noise=noise, device="cpu", on_step=ignore_step)
    again = condenses_again(condense_table("centroids", n_per_class=5), encoded, made, 7, "cpu")
    same = again(one_task.features, one_task.labels, one_task.subject_index, OWN_SEED)
    assert np.array_equal(same, made.features)
    assert not np.array_equal(again(one_task.features, one_task.labels, one_task.subject_index, 8), made.features)
    left = again(one_task.features[10:], one_task.labels[10:], one_task.subject_index[10:], OWN_SEED)
    assert left.shape == made.features.shape
    assert not np.array_equal(left, made.features)
