"""Covers against brute force; values, gains and choices against hand-made losses."""

from itertools import combinations

import numpy as np
import pytest

from pipeline.core.errors import DataError
from pipeline.grouping.choose import choose
from pipeline.grouping.cover import best_cover
from pipeline.grouping.gains import GroupLosses, gain_of, gains, null_log_losses, subject_weights, values
from pipeline.grouping.partition import Limits, cheapest_partition


@pytest.mark.parametrize("seed", range(40))
def test_covers_are_the_best_there_are(seed: int) -> None:
    rng = np.random.default_rng(seed)
    member = rng.random((12, 5)) < 0.5
    member[0] = True
    worth = np.where(member, rng.normal(size=member.shape), np.nan)
    max_groups = int(rng.integers(1, 5))
    found = best_cover(worth, max_groups=max_groups)
    filled = np.where(member, worth, -np.inf)
    best = max(
        filled[list(rows)].max(axis=0).sum()
        for size in range(1, max_groups + 1)
        for rows in combinations(range(12), size)
    )
    assert found.objective == pytest.approx(best)
    assert len(found.opened) <= max_groups
    assert all(member[row, task] for task, row in enumerate(found.serves))


def test_a_cover_where_greed_fails_is_found() -> None:
    """Greedy opens the group in the middle first; the best two leave it out."""
    worth = np.full((3, 4), np.nan)
    worth[0, 1:3], worth[1, :2], worth[2, 2:] = 1.1, 1.0, 1.0
    found = best_cover(worth, max_groups=2)
    assert (found.opened, found.serves) == ((1, 2), (1, 1, 2, 2))


def test_no_cover_is_said() -> None:
    with pytest.raises(DataError, match="no 1 of the candidate groups cover all 2 tasks"):
        best_cover(np.array([[1.0, np.nan], [np.nan, 1.0]]), max_groups=1)
    with pytest.raises(DataError, match="needs max_groups"):
        best_cover(np.array([[1.0, np.nan]]), max_groups=1)


def test_constraints_name_the_groups_that_stay() -> None:
    groups = np.array([[1, 1, 0], [1, 0, 1], [1, 1, 1], [0, 0, 1]], dtype=bool)
    assert Limits(largest=2).allow(groups).tolist() == [True, True, False, True]
    assert Limits(must_link=((0, 1),)).allow(groups).tolist() == [True, False, True, True]
    assert Limits(cannot_link=((1, 2),)).allow(groups).tolist() == [True, True, False, True]


def test_partition_of_trained_groups_only() -> None:
    cost = np.full(8, np.inf)
    cost[[1, 2, 4, 6]] = [0.0, 0.0, 0.0, -1.0]
    assert cheapest_partition(cost, max_groups=2) == (((0,), (1, 2)), -1.0)
    with pytest.raises(DataError, match="no 1 of the candidate groups"):
        cheapest_partition(cost, max_groups=1)


GROUPS = np.array([[1, 0], [0, 1], [1, 1]], dtype=bool)


def made(n_stays: int, help_first: float, help_second: float, noise: float = 0.0, seed: int = 0) -> GroupLosses:
    """Log-loss .5 alone, less what the pair helps; null log-loss 1."""
    rng = np.random.default_rng(seed)
    loss = np.full((3, 2, n_stays, 2), np.nan)
    loss[0, :, :, 0], loss[1, :, :, 1] = 0.5, 0.5
    loss[2] = 0.5 - np.array([help_first, help_second]) + noise * rng.normal(size=(2, n_stays, 2))
    return GroupLosses(GROUPS, loss.astype(np.float32), np.ones((n_stays, 2)), np.arange(n_stays, dtype=np.int32))


def test_values_and_gains_by_hand() -> None:
    worth = values(made(10, 0.2, -0.1))[0]
    np.testing.assert_allclose(worth, [[0.5, np.nan], [np.nan, 0.5], [0.7, 0.4]], atol=1e-6)
    np.testing.assert_allclose(gains(worth, GROUPS)[2], [0.2, -0.1], atol=1e-6)


def test_a_stay_without_a_label_has_no_say() -> None:
    losses = made(4, 0.2, 0.2)
    null = losses.null.copy()
    null[0, 0] = np.nan
    loss = losses.loss.copy()
    loss[:, :, 0, 0] = np.nan
    missing = GroupLosses(GROUPS, loss, null, losses.subjects)
    np.testing.assert_allclose(values(missing)[0][2], [0.7, 0.7], atol=1e-6)
    assert gain_of(missing, (2, 2)).mean == pytest.approx(0.2, abs=1e-6)


def test_weights_move_stays_of_one_subject_together() -> None:
    weights = subject_weights(np.array([5, 5, 7, 9], dtype=np.int32), 50, seed=0)
    assert (weights[:, 0] == weights[:, 1]).all()
    assert ((weights[:, 1] + weights[:, 2] + weights[:, 3]) == 3).all()


def test_a_group_that_helps_is_chosen_and_one_that_harms_is_not() -> None:
    both = choose(made(200, 0.2, 0.1, noise=0.3), max_groups=2, seed=0)
    assert both.cover.serves == (2, 2)
    assert both.names(("a", "b")) == (("a", "b"),)
    assert both.together.min() == pytest.approx(1.0)
    split = choose(made(200, 0.2, -0.1, noise=0.3), max_groups=2, seed=0)
    assert split.cover.serves == (2, 1)
    neither = choose(made(200, 0.0, 0.0, noise=0.3, seed=2), max_groups=2, seed=0)
    assert neither.share_gaining.min() >= 0.8  # who does not gain for sure stays alone


def test_a_harmed_task_is_named() -> None:
    gain = gain_of(made(400, 0.2, -0.1, noise=0.2), (2, 2))
    assert gain.harmed == (1,)
    assert gain.low < gain.mean < gain.high
    assert gain.mean == pytest.approx(0.05, abs=0.02)


def test_intervals_cover_as_often_as_they_say() -> None:
    """80 % intervals over 1,000 simulated sets of stays: 4 standard errors of a binomial at .8 are .05."""
    covered = [
        gain.low <= 0.05 <= gain.high
        for gain in (gain_of(made(60, 0.1, 0.0, 0.5, seed), (2, 2)) for seed in range(1000))
    ]
    assert 0.75 <= np.mean(covered) <= 0.85


def test_a_task_never_trained_alone_is_said() -> None:
    with pytest.raises(DataError, match="trained alone"):
        gains(np.zeros((1, 2)), np.array([[True, True]]))


def test_null_losses_by_hand() -> None:
    found = null_log_losses(np.array([[1.0], [0.0], [np.nan]], dtype=np.float32), np.array([0.25]))
    np.testing.assert_allclose(found[:2, 0], [-np.log(0.25), -np.log(0.75)])
    assert np.isnan(found[2, 0])
