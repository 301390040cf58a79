"""Inverting a window map: neighbours in a dictionary of known windows, a linear inverse, and damped Gauss-Newton.

No single inverse is trusted: a weak attack under-reports, so callers score all of them and report the best. The
attacker knows which channel a window belongs to and how that channel's windows look in his own patients, so neighbours
and the choice among several pre-images are made channel by channel ("group" below).
Gauss-Newton is Levenberg-Marquardt (Marquardt 1963) on all windows at once, with finite-difference Jacobians.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from pipeline.audit.windows import Forward

N_NEIGHBOURS = 8
N_STARTS = 4  # neighbours of the same group tried as starting points; as many of any group
ITERATIONS = 15
DIFFERENCE = 1e-3  # step of the finite differences: float32 encoders have no more digits
SOLVED = 1e-13  # mean squared residual at which a window counts as recovered: float32 has no more digits
AS_GOOD = 1e-9  # residuals below this do not tell two pre-images apart; the more usual window is taken
USUAL = 0.01  # a pre-image this close to a known window of its group is not searched further
RIDGE = 1e-12


@dataclass(frozen=True)
class Windows:
    """Distinct windows with their group, and the index that rebuilds all rows."""

    rows: np.ndarray  # (distinct, width)
    group: np.ndarray  # (distinct,) int
    back: np.ndarray  # (window,)


@dataclass(frozen=True)
class Dictionary:
    """Windows whose encoding the attacker knows; group -1 = of no group in particular (chosen windows)."""

    plain: np.ndarray  # (known, window)
    encoded: np.ndarray  # (known, output)
    group: np.ndarray  # (known,)


def distinct(grouped: np.ndarray) -> Windows:
    """Distinct windows of `(group, window, width)`: constant windows repeat by the thousand."""
    groups, n, width = grouped.shape
    labels = np.repeat(np.arange(groups), n)
    flat = grouped.reshape(-1, width)
    rows = np.ascontiguousarray(np.hstack([flat, labels[:, None]]), np.float32)
    keys = rows.view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1]))).ravel()
    _, first, back = np.unique(keys, return_index=True, return_inverse=True)
    return Windows(flat[first].astype(np.float64), labels[first], back)


def neighbours(known: np.ndarray, group: np.ndarray, asked: np.ndarray, asked_group: np.ndarray, k: int) -> np.ndarray:
    """Indices of the k nearest known rows of the same group (of any, where the group has fewer): `(asked, k)`."""
    near = np.empty((len(asked), k), np.int64)
    everywhere: cKDTree | None = None
    for label in np.unique(asked_group):
        rows, mine = np.flatnonzero(asked_group == label), np.flatnonzero(group == label)
        if len(mine) >= k:
            near[rows] = mine[cKDTree(known[mine]).query(asked[rows], k=k)[1].reshape(-1, k)]
        else:
            everywhere = everywhere or cKDTree(known)
            near[rows] = everywhere.query(asked[rows], k=k)[1].reshape(-1, k)
    return near


def linear_inverse(known: Dictionary, encoded: np.ndarray, intercept: bool) -> np.ndarray:
    """Least squares from encoded to plain windows, clipped to [0, 1]."""

    def design(outputs: np.ndarray) -> np.ndarray:
        return np.hstack([outputs, np.ones((len(outputs), 1))]) if intercept else outputs

    weights = np.linalg.lstsq(design(known.encoded), known.plain, rcond=1e-8)[0]
    return np.asarray(np.clip(design(encoded) @ weights, 0, 1))


def inverses(known: Dictionary, seen: Windows, forward: Forward | None) -> Mapping[str, np.ndarray]:
    """Every inverse's estimate of the plain windows behind `seen`, each `(distinct, window)` in [0, 1].

    Args:
        forward: the window map, known or estimated; None = no refinement.
    """
    k = min(N_NEIGHBOURS, len(known.plain))
    near = neighbours(known.encoded, known.group, seen.rows, seen.group, k)
    linear = linear_inverse(known, seen.rows, intercept=False)
    found = {
        "nearest neighbour": known.plain[near[:, 0]],
        "mean of neighbours": known.plain[near].mean(axis=1),
        "linear inverse": linear,
        "linear inverse with intercept": linear_inverse(known, seen.rows, intercept=True),
    }
    if forward is not None:
        anywhere = cKDTree(known.encoded).query(seen.rows, k=k)[1].reshape(-1, k)
        picks = [index[:, i] for index in (near, anywhere) for i in range(min(N_STARTS, k))]
        found["gauss-newton"] = multistart(forward, known, seen, [*(known.plain[pick] for pick in picks), linear])
    return found


def multistart(forward: Forward, known: Dictionary, seen: Windows, starts: list[np.ndarray]) -> np.ndarray:
    """Gauss-Newton from every start; among the pre-images found, the one most like windows of its group.

    The encoder need not be one-to-one: residuals below `AS_GOOD` are all pre-images, and the one nearest to a window
    of the attacker's own patients is taken, an approximation of the most probable one.
    """
    best = starts[0].astype(np.float64)
    residual = np.full(len(best), np.inf)
    distance = np.full(len(best), np.inf)
    rows = np.arange(len(best))
    for start in starts:
        found, left = gauss_newton(forward, seen.rows[rows], start[rows])
        left = np.maximum(left, AS_GOOD)
        near = neighbours(known.plain, known.group, found, seen.group[rows], 1)[:, 0]
        away = np.linalg.norm(found - known.plain[near], axis=1)
        better = (left < residual[rows]) | ((left == residual[rows]) & (away < distance[rows]))
        taken = rows[better]
        best[taken], residual[taken], distance[taken] = found[better], left[better], away[better]
        rows = rows[(residual[rows] > AS_GOOD) | (distance[rows] > USUAL)]
        if rows.size == 0:
            break
    return best


def gauss_newton(forward: Forward, encoded: np.ndarray, start: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Damped Gauss-Newton in the box [0, 1]; returns the windows and their mean squared residual per output."""
    x = np.clip(start.astype(np.float64), 0, 1)
    r = forward(x) - encoded
    loss = np.mean(r**2, axis=1)
    damping = np.full(len(x), 1e-3)
    active = np.flatnonzero(loss > SOLVED)
    for _ in range(ITERATIONS):
        if active.size == 0:
            break
        jacobian = _jacobian(forward, x[active], r[active] + encoded[active])
        normal = np.einsum("nki,nkj->nij", jacobian, jacobian)
        gradient = np.einsum("nki,nk->ni", jacobian, r[active])
        scale = damping[active, None, None] * np.eye(x.shape[1]) + RIDGE * np.eye(x.shape[1])
        step = np.linalg.solve(normal + scale, gradient[..., None])[..., 0]
        trial = np.clip(x[active] - step, 0, 1)
        trial_r = forward(trial) - encoded[active]
        trial_loss = np.mean(trial_r**2, axis=1)
        better = trial_loss < loss[active]
        done = active[better]
        x[done], r[done], loss[done] = trial[better], trial_r[better], trial_loss[better]
        damping[active] = np.where(better, damping[active] / 5, damping[active] * 5)
        active = active[(loss[active] > SOLVED) & (damping[active] < 1e6)]
    return x, loss


def _jacobian(forward: Forward, x: np.ndarray, value: np.ndarray) -> np.ndarray:
    """`(window, output, input)` by one-sided differences that stay in the box."""
    windows, inputs = x.shape
    signs = np.where(x > 0.5, -1.0, 1.0) * DIFFERENCE
    moved = np.repeat(x[None], inputs, axis=0)
    moved[np.arange(inputs), :, np.arange(inputs)] += signs.T
    outputs = forward(moved.reshape(-1, inputs)).reshape(inputs, windows, -1)
    return np.moveaxis((outputs - value[None]) / signs.T[..., None], 0, 2)
