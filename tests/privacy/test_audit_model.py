"""T7: a model that learnt its patients by heart names them; a model of a set that depends on nobody is a coin."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from pipeline.audit.run import audit
from pipeline.audit.scene import CondensedScene
from pipeline.audit.sets.model_membership import ModelMembership, log_likelihood, overfitted, people
from pipeline.core.types import CondensedSet, Provenance, Task
from pipeline.probes.panel import fit_predict

STEPS, CHANNELS, TASKS = 6, 4, 2


def stays(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Series, and labels that the series tell in part."""
    rng = np.random.default_rng(seed)
    level = rng.uniform(0.2, 0.8, (n, 1, CHANNELS))
    series = np.clip(level + rng.normal(0, 0.05, (n, STEPS, CHANNELS)), 0, 1).astype(np.float32)
    labels = (level[:, 0, :TASKS] + rng.normal(0, 0.3, (n, TASKS)) > 0.5).astype(np.float32)
    return series, labels


MEMBERS, HOLDOUT, STRANGERS = stays(500, 1), stays(700, 2), stays(80, 3)


def receiver(series: np.ndarray, labels: np.ndarray, asked: np.ndarray, seed: int) -> np.ndarray:
    return fit_predict("logistic_regression", series, labels, asked, epochs=30, seed=seed)


def remembering(series: np.ndarray, labels: np.ndarray, asked: np.ndarray, seed: int) -> np.ndarray:
    """A model that answers a record it has seen with its labels, and any other with a half."""
    seen = {row.tobytes(): answer for row, answer in zip(series, labels, strict=True)}
    unknown = np.full(labels.shape[1], 0.5, np.float32)
    return np.stack([np.clip(seen.get(row.tobytes(), unknown), 0.1, 0.9) for row in asked])


def scene_of(samples: tuple[np.ndarray, np.ndarray]) -> CondensedScene:
    condensed = CondensedSet(
        features=samples[0],
        labels=samples[1],
        channels=tuple("abcd"),
        tasks=(Task("death"), Task("long stay")),
        step_hours=1.0,
        transforms=(),
        method="test",
        starts_from_records=False,
        guarantee=None,
        provenance=Provenance("test"),
    )
    subjects = np.arange(len(MEMBERS[0])), 10_000 + np.arange(len(HOLDOUT[0]))
    return CondensedScene(
        "set", "0" * 64, condensed, MEMBERS[0], HOLDOUT[0], *subjects, MEMBERS[1], HOLDOUT[1], receiver=receiver
    )


def test_a_model_of_strangers_is_a_coin_and_an_overfitted_one_is_found() -> None:
    ranked, named = ModelMembership().run(scene_of(STRANGERS), 0)
    assert ranked.low <= 0.5 <= ranked.high
    assert ranked.positive_control is not None
    assert ranked.positive_control >= 0.7
    assert ranked.controls_held
    assert named.detail["realised_fpr"] < 0.1
    assert (ranked.statistic, named.statistic) == ("auroc", "tpr_at_smallest_fpr")
    assert not named.powered
    assert ranked.threat_model == "T7"
    assert (ranked.gates, named.gates) == (True, False)


def test_a_network_that_learnt_a_hundred_members_is_found() -> None:
    """The planted leak of every run, over three draws: AUROC above one half beyond its interval."""
    for seed in range(3):
        found = overfitted(people(scene_of(STRANGERS), seed), seed)
        assert found.auroc.low > 0.5
        assert found.auroc.value >= 0.7


def test_members_whom_the_model_knows_are_named() -> None:
    """A set of all members verbatim under a receiver that learns by heart: nearly everybody is named."""
    scene = dataclasses.replace(scene_of(MEMBERS), receiver=remembering)
    ranked, named = ModelMembership().run(scene, 0)
    assert ranked.low > 0.9
    assert named.low > 0.5
    half = (MEMBERS[0][:250], MEMBERS[1][:250])
    some, _ = ModelMembership().run(dataclasses.replace(scene_of(half), receiver=remembering), 0)
    assert 0.6 < some.rate < ranked.rate


def test_the_loss_counts_known_tasks_only() -> None:
    p = np.array([[0.8, 0.1], [0.8, 0.1]])
    y = np.array([[1.0, np.nan], [1.0, 0.0]])
    found = log_likelihood(p, y)
    assert found[0] == pytest.approx(np.log(0.8))
    assert found[1] == pytest.approx((np.log(0.8) + np.log(0.9)) / 2)


def test_without_a_receiver_or_labels_it_is_not_run() -> None:
    scene = scene_of(STRANGERS)
    attack = ModelMembership()
    assert "receiver" in str(attack.unsupported(dataclasses.replace(scene, receiver=None)))
    assert "labels" in str(attack.unsupported(dataclasses.replace(scene, member_labels=None)))
    unknown = dataclasses.replace(scene, holdout_labels=np.full_like(HOLDOUT[1], np.nan))
    assert "100" in str(attack.unsupported(unknown))
    (report,) = audit([dataclasses.replace(scene, receiver=None)], seed=0, attacks=(attack,))
    assert "model_membership" in {item.attack for item in report.not_run}


def test_the_same_seed_gives_the_same_figures() -> None:
    scene = dataclasses.replace(scene_of(STRANGERS), receiver=remembering)
    assert ModelMembership().run(scene, 5) == ModelMembership().run(scene, 5)
