"""Attributes: an encoded row tells them, a set tells its own members', and neither tells what it does not hold."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.audit.advantage import other_people, same_people, shares
from pipeline.audit.encodings.attribute_inference import AttributeInference
from pipeline.audit.scene import CondensedScene, EncodingScene
from pipeline.audit.sets.attribute_set import AttributeInferenceFromSet
from pipeline.core.types import CondensedSet, Provenance, Task

STEPS, CHANNELS = 12, 6
NAMES = (*tuple("abcde"), "sex")
MIX = np.linalg.qr(np.random.default_rng(0).standard_normal((4, 4)))[0]


def people(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Five series, a static 0 / 1 that none of them tells, and a label that the first series tells a little."""
    rng = np.random.default_rng(seed)
    level = rng.uniform(0.2, 0.8, (n, 1, CHANNELS))
    series = np.clip(level + rng.normal(0, 0.02, (n, STEPS, CHANNELS)).cumsum(axis=1), 0, 1)
    series[:, :, -1] = rng.integers(0, 2, (n, 1))
    labels = (level[:, 0, :1] + rng.normal(0, 0.2, (n, 1)) > 0.5).astype(np.float32)
    return series.astype(np.float32), labels


def projected(series: np.ndarray) -> np.ndarray:
    windows = np.swapaxes(series, 1, 2).reshape(len(series), CHANNELS, -1, 4) @ MIX
    return np.swapaxes(windows.reshape(len(series), CHANNELS, -1), 1, 2)


def encoding(hides: bool) -> EncodingScene:
    """A projection of all channels; or one that drops the static."""
    own, targets = people(400, 1)[0], people(700, 2)[0]

    def encode(series: np.ndarray) -> np.ndarray:
        return projected(np.where(np.arange(CHANNELS) == CHANNELS - 1, 0.0, series) if hides else series)

    return EncodingScene(
        "encoded", "0" * 64, encode, own, targets, encode(targets), np.arange(700), NAMES, window_steps=4
    )  # fmt: skip


def test_an_encoded_row_tells_the_static_that_is_in_it() -> None:
    results = AttributeInference().run(encoding(hides=False), 0)
    assert [result.threat_model for result in results] == ["T4", "T2"]
    for result in results:
        assert result.detail["attribute"] == "sex"
        assert result.detail["auroc_with"] > 0.95
        assert result.low > 0.3
        assert result.controls_held


def test_a_row_without_the_static_does_not_tell_it() -> None:
    for result in AttributeInference().run(encoding(hides=True), 0):
        assert result.low <= 0
        assert result.controls_held


def test_who_has_no_attribute_is_not_run() -> None:
    series = people(400, 1)[0]
    series[:, :, -1] = 1
    scene = encoding(hides=False)
    plain = EncodingScene(**{**vars(scene), "own": series})
    assert "alike" in str(AttributeInference().unsupported(plain))
    assert AttributeInference().unsupported(scene) is None


def condensed(samples: tuple[np.ndarray, np.ndarray], members: tuple[np.ndarray, np.ndarray]) -> CondensedScene:
    holdout = people(700, 4)
    made = CondensedSet(
        features=samples[0],
        labels=samples[1],
        channels=NAMES,
        tasks=(Task("death"),),
        step_hours=1.0,
        transforms=(),
        method="test",
        starts_from_records=False,
        guarantee=None,
        provenance=Provenance("test"),
    )
    subjects = np.arange(len(members[0])), 10_000 + np.arange(len(holdout[0]))
    return CondensedScene("set", "0" * 64, made, members[0], holdout[0], *subjects, members[1], holdout[1])


def test_a_set_knows_its_members_attributes() -> None:
    members = people(300, 3)
    (result,) = AttributeInferenceFromSet().run(condensed(members, members), 0)
    assert result.low > 0.2
    assert result.controls_held


def test_a_set_of_strangers_knows_no_more_than_the_rule() -> None:
    (result,) = AttributeInferenceFromSet().run(condensed(people(300, 5), people(300, 3)), 0)
    assert result.low <= 0
    assert result.controls_held
    assert result.detail["auroc_without_the_set"] is not None


@pytest.mark.parametrize("paired", [True, False])
def test_intervals_of_differences_cover(paired: bool) -> None:
    """Scores of cases one and a half standard deviations apart: 400 draws, coverage at least as of a 93 % interval."""
    rng = np.random.default_rng(6)
    covered = 0
    for _ in range(400):
        truth = np.arange(160) < 70
        a, b = rng.normal(truth, 1.0), rng.normal(truth, 1.0)
        found = same_people(shares(a, truth), shares(b, truth)) if paired else other_people(
            shares(a, truth), shares(b[::-1][:120], truth[::-1][:120])
        )  # fmt: skip
        covered += found.low <= 0 <= found.high
    assert covered >= 0.93 * 400 - 3 * np.sqrt(0.07 * 0.93 * 400)
