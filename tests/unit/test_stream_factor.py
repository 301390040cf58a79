"""The factor of a stream: its law, the noise it leaves, and what a person can move, against brute force."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from condensation.private.stream.factor import (
    correlated,
    factor_sensitivity,
    relative_noise,
    running_sums,
    square_root_factor,
)


def matrix(factor: np.ndarray) -> np.ndarray:
    """The lower triangular Toeplitz matrix with this first column."""
    rows, columns = np.indices((len(factor), len(factor)))
    return np.where(rows >= columns, factor[rows - columns], 0.0)


@pytest.mark.parametrize(("nights", "window"), [(1, None), (9, None), (40, None), (40, 7), (40, 1), (12, 12)])
def test_the_factor_is_a_square_root_of_the_sums(nights: int, window: int | None) -> None:
    root = matrix(square_root_factor(nights, window))
    increments = np.random.default_rng(0).normal(size=(nights, 3))
    sums = np.stack([increments[max(0, t + 1 - (window or nights)) : t + 1].sum(axis=0) for t in range(nights)])
    assert np.allclose(root @ root @ increments, sums)
    assert np.allclose(running_sums(increments, window), sums)
    for night in (1, nights):
        assert np.allclose(correlated(increments[:night], root[:, 0]), (root @ increments)[night - 1])


@pytest.mark.parametrize(
    ("nights", "window", "rms", "worst"),
    [
        *((52, None, 2.2, 2.3), (365, None, 2.8, 2.9), (730, None, 3.0, 3.2)),
        *((365, 30, 2.3, 2.4), (365, 90, 2.7, 2.8), (1095, 365, 3.2, 3.4), (3650, 365, 3.3, 3.4)),
    ],
)
def test_noise_of_a_night_beside_one_release(nights: int, window: int | None, rms: float, worst: float) -> None:
    """A year's worst night has 2.9 times the noise of one release; a rolling year for ten years 3.4 times."""
    assert np.round(relative_noise(square_root_factor(nights, window)), 1).tolist() == [rms, worst]


def patterns(nights: int, entries: int, separation: int) -> list[tuple[int, ...]]:
    found = itertools.chain.from_iterable(itertools.combinations(range(nights), k) for k in range(1, entries + 1))
    return [one for one in found if all(b - a >= separation for a, b in itertools.pairwise(one))]


def worst_of_all(root: np.ndarray, entries: int, separation: int) -> float:
    """Over every pattern and every sign of every entry; directions that are not parallel add up to less."""
    found = 0.0
    for pattern in patterns(len(root), entries, separation):
        for signs in itertools.product((1.0, -1.0), repeat=len(pattern) - 1):
            found = max(found, float(np.linalg.norm(root[:, list(pattern)] @ np.array([1.0, *signs]))))
    return found


@pytest.mark.parametrize("window", [None, 4, 9])
@pytest.mark.parametrize(("entries", "separation"), [(1, 1), (2, 1), (2, 3), (3, 1), (3, 4), (4, 2), (4, 6)])
def test_no_pattern_of_entries_moves_more_than_the_bound(window: int | None, entries: int, separation: int) -> None:
    factor = square_root_factor(14, window)
    bound, reached = factor_sensitivity(factor, entries, separation), worst_of_all(matrix(factor), entries, separation)
    assert reached <= bound * (1 + 1e-12)
    if window is None or entries == 1:
        assert reached == pytest.approx(bound)  # and it is reached
    else:
        assert bound <= 1.6 * reached


def test_known_prices_of_a_second_and_third_entry() -> None:
    """The bounds that jax-privacy 2.0.0 gives for the same matrices (get_min_sep_sensitivity_upper_bound)."""
    factor = square_root_factor(365)
    assert factor_sensitivity(factor) == pytest.approx(1.7158244520427, rel=1e-12)
    assert factor_sensitivity(factor, 2, 30) == pytest.approx(2.8821101861063, rel=1e-12)
    assert factor_sensitivity(factor, 2, 90) == pytest.approx(2.7357520524455, rel=1e-12)
    assert factor_sensitivity(factor, 3, 30) <= 3.9664538035398  # theirs adds entries up greedily


def test_a_window_costs_no_more_for_ever() -> None:
    """Ten years and twenty-seven: one admission's price in a rolling year hardly moves, without a window it grows."""
    ten, longest = (factor_sensitivity(square_root_factor(nights, 365)) for nights in (3650, 10_000))
    assert longest / ten < 1.001
    assert factor_sensitivity(square_root_factor(10_000)) / factor_sensitivity(square_root_factor(3650)) > 1.04
