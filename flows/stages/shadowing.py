"""Condense again for the audit: other stays, the same table, noise from a made-up secret instead of the site's."""

from __future__ import annotations

import dataclasses
import hashlib

import numpy as np

from flows import registry
from flows.stages.learn import device, with_tasks
from pipeline.audit.scene import Recondense
from pipeline.audit.successive import OWN_SEED
from pipeline.core.config import Condense
from pipeline.core.digest import digest_array, digest_json
from pipeline.core.noise import NoiseSource
from pipeline.core.protocols import ignore_step
from pipeline.core.secrets import Secret
from pipeline.core.types import CondensedSet, EncodedCohort, Split


def condenses_again(table: Condense, encoded: EncodedCohort, made: CondensedSet, seed: int, wanted: str) -> Recondense:
    """The table's method on stays that the audit chooses, with the tasks of the set that was made.

    Nothing that comes of it leaves the site. Noise is bound to the stays, as that of a release is, but its secret is
    made up: the audit must not replay the site's noise.

    Args:
        seed: of the set itself; wanted: the configuration's device.
    """
    template = with_tasks(encoded, made.tasks)
    where = device(wanted)

    def again(series: np.ndarray, labels: np.ndarray, subjects: np.ndarray, asked: int) -> np.ndarray:
        codes = np.unique(subjects, return_inverse=True)[1].astype(np.int32)
        stays = dataclasses.replace(
            template,
            features=series.astype(np.float32),
            labels=labels.astype(np.float32),
            subject_index=codes,
            split=np.full(len(series), int(Split.TRAIN), np.int8),
        )
        arrays = {"features": stays.features, "labels": stays.labels, "subject_index": stays.subject_index}
        digests = {name: digest_array(array) for name, array in arrays.items()}
        made_up = Secret(hashlib.sha256(f"shadow {asked}".encode()).digest(), "noise")
        condensed = registry.condenser(table).condense(
            stays,
            n_per_class=table.n_per_class,
            seed=seed if asked == OWN_SEED else asked,
            noise=NoiseSource(made_up, digest_json(digests)),
            device=where,
            on_step=ignore_step,
        )
        return condensed.features

    return again
