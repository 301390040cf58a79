"""Condense again for the audit: other stays, the same table, noise from a made-up secret instead of the site's."""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Callable, Sequence

import numpy as np

from flows import registry
from flows.compute.devices import device
from pipeline.audit.run import DEFAULT_ATTACKS, condensations
from pipeline.audit.scene import CondensedScene, LeakageAttack, Level, Recondense
from pipeline.audit.sets.successive import OWN_SEED
from pipeline.core.config import Condense
from pipeline.core.digest import digest_array, digest_json
from pipeline.core.keys.noise import NoiseSource
from pipeline.core.keys.secrets import Secret
from pipeline.core.protocols import ignore_step
from pipeline.core.types import CondensedSet, EncodedCohort, Split, with_tasks


def counted(recondense: Recondense, artefact: str, left: int, seconds: float, say: Callable[[str], None]) -> Recondense:
    """The same, which says before each condensation how many are left and how long they take at most.

    Args:
        left: condensations that the audit has still to make; seconds: what making the set itself took.
    """
    took: list[float] = []

    def again(series: np.ndarray, labels: np.ndarray, subjects: np.ndarray, asked: int) -> np.ndarray:
        each, remaining = max(took, default=seconds), max(1, left - len(took))
        say(
            f"  {artefact}: {remaining} shadow condensation{'s' if remaining > 1 else ''} of about {each:.1f} s, "
            f"at most {remaining * each:.0f} s"
        )
        began = time.monotonic()
        made = recondense(series, labels, subjects, asked)
        took.append(time.monotonic() - began)
        return made

    return again


def announced(
    scene: CondensedScene,
    seconds: float,
    level: Level,
    say: Callable[[str], None],
    attacks: Sequence[LeakageAttack] = DEFAULT_ATTACKS,
) -> CondensedScene:
    """The scene, after telling how often its set is condensed again and how long that takes; then counted down."""
    if level != "full" or scene.recondense is None:
        return scene
    planned, kept = condensations(scene, attacks)
    if planned == 0:
        return scene
    left = planned - kept
    there = f"; {kept} of {planned} are kept from before" if kept else ""
    say(
        f"  {scene.artefact}: {left} shadow condensations of about {seconds:.1f} s, at most {left * seconds:.0f} s"
        f"{there}"
    )
    return dataclasses.replace(scene, recondense=counted(scene.recondense, scene.artefact, left, seconds, say))


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
