"""The two-sample audit: quiet where the set does not depend on who is a member, loud for leaks of many kinds."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from pipeline.audit.scene import CondensedScene
from pipeline.audit.sets import distances, two_sample
from pipeline.audit.sets.two_sample import LEVEL, People, TwoSample, examine
from pipeline.core.types import CondensedSet, Provenance, Task

STEPS, CHANNELS = 12, 4


def people(n: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    level = rng.uniform(0.2, 0.8, (n, 1, CHANNELS))
    return np.clip(level + rng.normal(0, 0.03, (n, STEPS, CHANNELS)).cumsum(axis=1), 0, 1).astype(np.float32)


MEMBERS, HOLDOUT, STRANGERS = people(400, 1), people(600, 2), people(80, 3)


def scene(samples: np.ndarray) -> CondensedScene:
    condensed = CondensedSet(
        features=samples.astype(np.float32),
        labels=np.zeros((len(samples), 1), np.float32),
        channels=tuple("abcd"),
        tasks=(Task("death"),),
        step_hours=1.0,
        transforms=(),
        method="test",
        starts_from_records=False,
        guarantee=None,
        provenance=Provenance("test"),
    )
    return CondensedScene(
        artefact="set",
        artefact_digest="0" * 64,
        condensed=condensed,
        members=MEMBERS,
        holdout=HOLDOUT,
        member_subjects=np.arange(len(MEMBERS)),
        holdout_subjects=10_000 + np.arange(len(HOLDOUT)),
    )


@pytest.fixture(autouse=True)
def _fewer_relabellings(monkeypatch: pytest.MonkeyPatch) -> None:
    """The finest adjusted p-value is 2 / 500 then, finer than the level."""
    monkeypatch.setattr(two_sample, "RELABELLINGS", 499)


def test_a_set_of_strangers_is_quiet_and_controls_hold() -> None:
    (found,) = TwoSample().run(scene(STRANGERS), 0)
    assert found.rate == found.control == 0
    assert found.positive_control > 0
    assert found.controls_held
    assert found.powered
    assert TwoSample().run(scene(STRANGERS), 0) == (found,)


def pair_means() -> np.ndarray:
    return (MEMBERS[:80] + MEMBERS[80:160]) / 2


LEAKS = {
    "half the samples copied": lambda: np.concatenate([MEMBERS[:40], STRANGERS[:40]]),
    "negated": lambda: 1 - MEMBERS[:80],
    "spliced": lambda: np.concatenate([MEMBERS[:80, :6], MEMBERS[80:160, 6:]], axis=1),
    "means of pairs": pair_means,
    "one channel": lambda: np.concatenate([MEMBERS[:80, :, :1], STRANGERS[:, :, 1:]], axis=2),
    "shifted by five steps": lambda: np.roll(MEMBERS[:80], 5, axis=1),
}
FIXTURES_OF_THE_AUDIT = {"noisy copies", "mosaics", "backwards and rescaled"}


@pytest.mark.parametrize("name", LEAKS)
def test_leaks_that_it_was_not_made_for_are_found(name: str) -> None:
    assert name not in FIXTURES_OF_THE_AUDIT
    (found,) = TwoSample().run(scene(LEAKS[name]()), 0)
    assert found.rate > 0, found.detail["p_by_view"]
    assert found.controls_held


def test_few_subjects_are_not_run() -> None:
    small = CondensedScene(
        **{**vars(scene(STRANGERS)), "holdout": HOLDOUT[:90], "holdout_subjects": np.arange(90) + 999}
    )
    assert "100" in str(TwoSample().unsupported(small))


def test_nothing_alarms_too_often_where_nothing_leaks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Subjects in whose order, ids and ties membership stands: only the labels may matter. 120 audits at 5 %."""
    monkeypatch.setattr(two_sample, "RELABELLINGS", 99)
    p_values = []
    for seed in range(120):
        rng = np.random.default_rng(seed)
        records = np.round(rng.normal(size=(90, 4, 2)), 0).astype(np.float32)  # many ties
        subjects = rng.permutation(90)
        member = np.zeros(90, bool)
        member[subjects[:45]] = True
        who = People(records, subjects, member, np.round(rng.normal(size=(30, 4, 2)), 0).astype(np.float32))
        samples = np.round(rng.normal(size=(12, 4, 2)), 0).astype(np.float32)
        p_values.append(examine(who, {"set": samples}, rng)[0]["set"].p_value)
    assert sum(p <= 0.05 for p in p_values) <= stats.binom.ppf(0.98, 120, 0.05)
    assert sum(p <= LEVEL for p in p_values) <= stats.binom.ppf(0.999, 120, 2 * LEVEL)  # 2 in 100 is the finest p here


@pytest.mark.parametrize(("people_", "k"), [(24, 24), (100, 24), (400, 24), (401, 7)])
def test_the_nearest_are_those_of_a_stable_sort(people_: int, k: int) -> None:
    """Ties by the dozen: the first places of equals count, on every machine."""
    distance = np.round(np.random.default_rng(people_).normal(size=(30, people_)), 1).astype(np.float32)
    values, places = distances.k_nearest(distance, k)
    expected = np.argsort(distance, axis=1, kind="stable")[:, :k]
    np.testing.assert_array_equal(places, expected)
    np.testing.assert_array_equal(values, np.take_along_axis(distance, expected, axis=1))
