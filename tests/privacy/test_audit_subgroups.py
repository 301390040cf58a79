"""Membership by subgroup: who is exposed when the average person is not."""

from __future__ import annotations

import numpy as np

from pipeline.audit.scene import CondensedScene
from pipeline.audit.sets.subgroups import ISOLATED, SubgroupMembership
from pipeline.core.types import AttackResult, CondensedSet, Provenance, Task

CHANNELS = ("heart_rate", "temperature", "sex", "age")


def people(n: int, seed: int) -> np.ndarray:
    """Two series, a yes-or-no and an age."""
    rng = np.random.default_rng(seed)
    series = np.clip(rng.uniform(0.2, 0.8, (n, 1, 2)) + rng.normal(0, 0.03, (n, 8, 2)).cumsum(axis=1), 0, 1)
    sex = np.repeat((rng.uniform(size=(n, 1, 1)) < 0.5).astype(float), 8, axis=1)
    age = np.repeat(rng.uniform(size=(n, 1, 1)), 8, axis=1)
    return np.concatenate([series, sex, age], axis=2).astype(np.float32)


MEMBERS, HOLDOUT = people(500, 1), people(900, 2)


def found(samples: np.ndarray) -> AttackResult:
    condensed = CondensedSet(
        features=samples,
        labels=np.zeros((len(samples), 1), np.float32),
        channels=CHANNELS,
        tasks=(Task("death"),),
        step_hours=1.0,
        transforms=(),
        method="test",
        starts_from_records=False,
        guarantee=None,
        provenance=Provenance("test"),
    )
    ids = 10_000 + np.arange(len(HOLDOUT))
    (result,) = SubgroupMembership().run(
        CondensedScene("set", "0" * 64, condensed, MEMBERS, HOLDOUT, np.arange(len(MEMBERS)), ids), 0
    )
    return result


def test_groups_are_found_and_the_exposed_one_is_named() -> None:
    """Every member of high age lies in the set, and nobody else."""
    exposed = MEMBERS[MEMBERS[:, 0, 3] > 2 / 3]
    result = found(exposed)
    names = set(result.detail["groups"])
    assert {"sex: low", "sex: high", "age: lower third", "age: middle third", "age: upper third", ISOLATED} == names
    assert result.low > 0.8
    assert result.detail["groups"]["age: upper third"][0] > result.detail["groups"]["age: lower third"][0] + 0.2
    assert result.controls_held
    assert not result.gates


def test_a_set_of_strangers_exposes_no_group_and_small_groups_are_inconclusive() -> None:
    result = found(people(60, 3))
    assert result.low <= 0.5
    assert result.controls_held
    assert ISOLATED in result.detail["inconclusive"]  # about 30 people
    assert result.powered is False
