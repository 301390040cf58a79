"""Shadow sets and successive releases: a condenser that copies is caught, and an audit that was stopped goes on."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from pipeline.audit.run import audit
from pipeline.audit.scene import CondensedScene, Recondense
from pipeline.audit.sets.shadows import ShadowCondensation, coins, likelihood_ratios
from pipeline.audit.sets.successive import SuccessiveReleases
from pipeline.core.types import CondensedSet, Provenance, Task

STEPS, CHANNELS, MEMBERS, OTHERS = 6, 3, 500, 700


def people(n: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    level = rng.uniform(0.2, 0.8, (n, 1, CHANNELS))
    return np.clip(level + rng.normal(0, 0.05, (n, STEPS, CHANNELS)), 0, 1).astype(np.float32)


def copying(series: np.ndarray, labels: np.ndarray, subjects: np.ndarray, seed: int) -> np.ndarray:
    """Nearly everybody verbatim."""
    rows = np.random.default_rng(seed).permutation(len(series))[: int(0.9 * len(series))]
    return series[rows]


def averaging(series: np.ndarray, labels: np.ndarray, subjects: np.ndarray, seed: int) -> np.ndarray:
    """The mean of all and noise."""
    noise = np.random.default_rng(seed).normal(0, 0.1, (40, STEPS, CHANNELS))
    return (series.mean(axis=0) + noise).astype(np.float32)


def scene(recondense: Recondense, folder: str | None = None) -> CondensedScene:
    members, others = people(MEMBERS, 1), people(OTHERS, 2)
    labels = np.zeros((MEMBERS, 1), np.float32), np.zeros((OTHERS, 1), np.float32)
    samples = recondense(members, labels[0], np.arange(MEMBERS), 0)
    condensed = CondensedSet(
        features=samples,
        labels=np.zeros((len(samples), 1), np.float32),
        channels=("a", "b", "c"),
        tasks=(Task("death"),),
        step_hours=1.0,
        transforms=(),
        method="test",
        starts_from_records=False,
        guarantee=None,
        provenance=Provenance("test"),
    )
    subjects = np.arange(MEMBERS), 10_000 + np.arange(OTHERS)
    return CondensedScene(
        "set", "0" * 64, condensed, members, others, *subjects, *labels, recondense, folder
    )  # fmt: skip


def test_copies_are_named_by_shadows() -> None:
    ranked, named = ShadowCondensation(n_shadows=8).run(scene(copying), 0)
    assert ranked.low > 0.8
    assert named.low > named.detail["fpr"]
    assert ranked.controls_held
    assert named.statistic == "tpr_at_smallest_fpr"
    assert "not_measurable" in named.detail
    assert not named.powered


def test_averages_name_nobody() -> None:
    ranked, named = ShadowCondensation(n_shadows=8).run(scene(averaging), 0)
    assert ranked.low <= 0.5
    assert ranked.controls_held
    assert named.detail["epsilon_lower_bound"] < 1


def test_a_stopped_audit_goes_on(tmp_path: Path) -> None:
    """Five shadows are made, then the power fails; the second run makes the other three and gives the same result."""
    made: list[int] = []

    def failing(series: np.ndarray, labels: np.ndarray, subjects: np.ndarray, seed: int) -> np.ndarray:
        if len(made) == 5:
            raise KeyboardInterrupt
        made.append(seed)
        return copying(series, labels, subjects, seed)

    def counting(series: np.ndarray, labels: np.ndarray, subjects: np.ndarray, seed: int) -> np.ndarray:
        made.append(seed)
        return copying(series, labels, subjects, seed)

    given = scene(copying, str(tmp_path / "shadows"))
    attack = ShadowCondensation(n_shadows=8)
    with pytest.raises(KeyboardInterrupt):
        attack.run(dataclasses.replace(given, recondense=failing), 3)
    assert len(made) == 5
    resumed = attack.run(dataclasses.replace(given, recondense=counting), 3)
    assert len(made) == 8
    assert len(set(made)) == 8
    assert not list(tmp_path.glob("**/*.new"))
    assert resumed == attack.run(scene(copying), 3)


def test_coins_are_fair_for_every_target() -> None:
    tossed = coins(300, 8, 0)
    assert (tossed.sum(axis=0) == 4).all()
    assert len(np.unique(tossed, axis=1).T) > 50


def test_the_ratio_has_the_sign_of_the_nearer_mean() -> None:
    present = np.array([[True], [True], [False], [False]])
    shadow = np.array([[2.0], [2.2], [0.0], [0.2]])
    assert likelihood_ratios(np.array([2.1]), shadow, present)[0] > 0
    assert likelihood_ratios(np.array([0.1]), shadow, present)[0] < 0


def test_who_was_withdrawn_is_seen_where_the_set_copies() -> None:
    (result,) = SuccessiveReleases(n_releases=4).run(scene(lambda s, *_: s), 0)
    assert result.low > 0.8
    assert result.controls_held


def test_who_was_withdrawn_is_not_seen_where_noise_is_fresh() -> None:
    """With the same noise the difference of two averages is the withdrawn people's own; fresh noise drowns it."""
    fresh = iter(range(1, 100))
    given = scene(averaging)
    again = dataclasses.replace(given, recondense=lambda s, y, who, _: averaging(s, y, who, next(fresh)))
    (result,) = SuccessiveReleases(n_releases=4).run(again, 0)
    assert result.low <= 0.5
    assert result.controls_held


def test_the_screen_leaves_them_out() -> None:
    attacks = (ShadowCondensation(n_shadows=4), SuccessiveReleases(n_releases=4))
    (report,) = audit([scene(copying)], seed=0, attacks=attacks)
    assert not report.results
    assert {item.attack for item in report.not_run} >= {"shadow_condensation", "successive_releases"}
    without = dataclasses.replace(scene(copying), recondense=None)
    assert all("condense" in str(attack.unsupported(without)) for attack in attacks)
