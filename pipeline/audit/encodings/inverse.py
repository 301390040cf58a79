"""Inverting a window map: neighbours in a dictionary of known windows, a linear inverse, and damped Gauss-Newton.

No single inverse is trusted: a weak attack under-reports, so callers score all of them and report the best. The
attacker knows which channel a window belongs to and how that channel's windows look in his own patients, so neighbours
and the choice among several pre-images are made channel by channel ("group" below).
Gauss-Newton is Levenberg-Marquardt (Marquardt 1963) on all windows at once, with finite-difference Jacobians.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.spatial import cKDTree

from pipeline.audit.encodings.windows import Forward

N_NEIGHBOURS = 8
N_STARTS = 4  # neighbours of the same group tried as starting points; as many of any group
ITERATIONS = 15
DIFFERENCE = 1e-3  # step of the finite differences: float32 encoders have no more digits
SOLVED = 1e-13  # mean squared residual at which a window counts as recovered: float32 has no more digits
AS_GOOD = 1e-9  # residuals below this do not tell two pre-images apart; the more usual window is taken
USUAL = 0.01  # a pre-image this close to a known window of its group is not searched further
RIDGE = 1e-12
MAX_REFINED_WINDOW = 12  # wider windows get no Gauss-Newton: its Jacobians grow with the square of the window
WIDE = 256  # more outputs are regressed by normal equations: exact enough, and quick
ROUNDING = 1e-6  # encodings closer than this may differ by float32's rounding alone
REGRESSION_ROWS = 4  # known windows per output that a regression of its own asks for
POSTERIOR_PAIRS = 150_000_000  # pairs of a seen and a known window that the posterior means may look at
BLOCK_PAIRS = 1 << 19  # of them at a time: larger temporaries are mapped and zeroed anew each time
SMALLEST_SPREAD = 1e-3  # of the prior in a direction in which a group's windows hardly vary


@dataclass(frozen=True)
class Windows:
    """Distinct windows with their group, how often each occurs, and the index that rebuilds all rows."""

    rows: np.ndarray  # (distinct, width)
    group: np.ndarray  # (distinct,) int
    back: np.ndarray  # (window,)
    count: np.ndarray  # (distinct,)


@dataclass(frozen=True)
class Dictionary:
    """Windows whose encoding the attacker knows; group -1 = of no group in particular (chosen windows).

    `weight`: how often the window occurs in his own patients, 0 for windows that he made up.
    """

    plain: np.ndarray  # (known, window)
    encoded: np.ndarray  # (known, output)
    group: np.ndarray  # (known,)
    weight: np.ndarray  # (known,)

    def of(self, rows: np.ndarray) -> Dictionary:
        """The windows at `rows`."""
        return Dictionary(self.plain[rows], self.encoded[rows], self.group[rows], self.weight[rows])


def distinct(windows: np.ndarray, labels: np.ndarray) -> Windows:
    """Distinct windows `(window, width)` of each group: constant windows repeat by the thousand."""
    rows = np.ascontiguousarray(np.hstack([windows, labels[:, None]]), np.float32)
    keys = rows.view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1]))).ravel()
    _, first, back, count = np.unique(keys, return_index=True, return_inverse=True, return_counts=True)
    return Windows(windows[first].astype(np.float64), labels[first], back, count)


def neighbours(known: np.ndarray, group: np.ndarray, asked: np.ndarray, asked_group: np.ndarray, k: int) -> np.ndarray:
    """Indices of the k nearest known rows of the same group, the nearest repeated where it has fewer: `(asked, k)`.

    Of any group, where the same has none.
    """
    return _neighbours(known, group, asked, asked_group, k)[0]


def usual_neighbours(known: Dictionary, seen: Windows, k: int) -> np.ndarray:
    """As `neighbours` among the encodings; of those that rounding alone tells apart, the most frequent window first.

    Windows that encode alike are many. An exact match stays first: equal windows give equal bits.
    """
    near, distance = _neighbours(known.encoded, known.group, seen.rows, seen.group, k)
    tied = (distance < ROUNDING) & ((distance[:, :1] > 0) | (distance == 0))
    order = np.lexsort((distance, np.where(tied, -known.weight[near], 0), ~tied))
    return np.take_along_axis(near, order, axis=1)


def _neighbours(
    known: np.ndarray, group: np.ndarray, asked: np.ndarray, asked_group: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    near, distance = np.empty((len(asked), k), np.int64), np.empty((len(asked), k))
    everywhere: cKDTree | None = None
    for label in np.unique(asked_group):
        rows, mine = np.flatnonzero(asked_group == label), np.flatnonzero(group == label)
        if len(mine):
            few = min(k, len(mine))
            found, index = cKDTree(known[mine]).query(asked[rows], k=few)
            index = mine[index]
        else:
            few = k
            everywhere = everywhere or cKDTree(known)
            found, index = everywhere.query(asked[rows], k=k)
        repeated = np.r_[np.arange(few), np.zeros(k - few, int)]
        near[rows] = index.reshape(-1, few)[:, repeated]
        distance[rows] = found.reshape(-1, few)[:, repeated]
    return near, distance


def linear_inverse(known: Dictionary, encoded: np.ndarray, intercept: bool, noise: float = 0.0) -> np.ndarray:
    """Least squares from encoded to plain windows, clipped to [0, 1]; with noise, of standard deviation `noise`, ridge.

    Ridge with the noise's variance on the outputs is the best linear estimate given noiseless known pairs.
    """

    def design(outputs: np.ndarray) -> np.ndarray:
        return np.hstack([outputs, np.ones((len(outputs), 1))]) if intercept else outputs

    rows = design(known.encoded)
    if noise == 0 and rows.shape[1] <= WIDE:
        weights = np.linalg.lstsq(rows, known.plain, rcond=1e-8)[0]
    else:
        gram = rows.T @ rows
        smallest = ROUNDING**2 * float(np.trace(gram)) / len(gram)
        penalty = np.full(len(gram), max(len(rows) * noise**2, smallest))
        penalty[known.encoded.shape[1] :] = smallest
        weights = np.linalg.solve(gram + np.diag(penalty), rows.T @ known.plain)
    return np.asarray(np.clip(design(encoded) @ weights, 0, 1))


def by_group_regression(known: Dictionary, seen: Windows, noise: float, otherwise: np.ndarray) -> np.ndarray:
    """The best linear estimate in every group, from the windows of the attacker's own patients there.

    Args:
        otherwise: `(distinct, window)`, the estimate in groups with too few windows.
    """
    found = otherwise.copy()
    for label in np.unique(seen.group):
        own = known.of(np.flatnonzero((known.group == label) & (known.weight > 0)))
        if len(own.plain) < REGRESSION_ROWS * (own.encoded.shape[1] + 1):
            continue
        rows = seen.group == label
        share = own.weight / own.weight.sum()
        mean_out, mean_in = share @ own.encoded, share @ own.plain
        outputs, inputs = own.encoded - mean_out, own.plain - mean_in
        gram = (outputs * share[:, None]).T @ outputs
        gram += np.eye(len(gram)) * max(noise**2, RIDGE + 1e-9 * np.trace(gram) / len(gram))
        factor = cho_factor(gram)
        weights = cho_solve(factor, (outputs * share[:, None]).T @ inputs)
        found[rows] = np.clip(mean_in + (seen.rows[rows] - mean_out) @ weights, 0, 1)
    return found


def posterior_mean(known: Dictionary, seen: Windows, noise: np.ndarray, otherwise: np.ndarray) -> np.ndarray:
    """The mean of the group's own windows given the noisy encoding: exact if they were the whole prior.

    Args:
        noise: `(distinct,)` standard deviation of the Gaussian noise on every output of a seen window.
        otherwise: `(distinct, window)`, the estimate in groups without a window.
    """
    found = otherwise.copy()
    share = min(1.0, POSTERIOR_PAIRS / max(1, _pairs(known, seen)))
    for label in np.unique(seen.group):
        own = known.of(np.flatnonzero((known.group == label) & (known.weight > 0)))
        rows = np.flatnonzero(seen.group == label)
        own = own.of(np.arange(0, len(own.plain), max(1, round(1 / share))))
        if not len(own.plain):
            continue
        at_a_time = max(1, BLOCK_PAIRS // len(own.plain))
        for start in range(0, len(rows), at_a_time):
            part = rows[start : start + at_a_time]
            near = -(seen.rows[part] ** 2).sum(axis=1)[:, None] + 2 * seen.rows[part] @ own.encoded.T
            near -= (own.encoded**2).sum(axis=1)
            score = near / (2 * noise[part, None] ** 2) + np.log(own.weight)
            score -= score.max(axis=1, keepdims=True)
            weight = np.exp(score, dtype=np.float64)
            found[part] = weight @ own.plain / weight.sum(axis=1, keepdims=True)
    return found


def _pairs(known: Dictionary, seen: Windows) -> int:
    labels = np.unique(seen.group)
    mine = known.group[known.weight > 0]
    return int(sum((seen.group == label).sum() * (mine == label).sum() for label in labels))


def inverses(
    known: Dictionary, seen: Windows, forward: Forward | None, noise: float = 0.0, per_group: bool = False
) -> dict[str, np.ndarray]:
    """Every inverse's estimate of the plain windows behind `seen`, each `(distinct, window)` in [0, 1].

    Args:
        forward: the window map, known or estimated; None = no refinement.
        noise: standard deviation of what `seen` holds beside the map's outputs.
        per_group: every group has a map of its own, so that linear inverses are per group, too.
    """
    k = min(N_NEIGHBOURS, len(known.plain))
    near = usual_neighbours(known, seen, k)
    linear = _linear(known, seen, False, noise, per_group)
    found = {
        "nearest neighbour": known.plain[near[:, 0]],
        "mean of neighbours": known.plain[near].mean(axis=1),
        "linear inverse": linear,
        "linear inverse with intercept": _linear(known, seen, True, noise, per_group),
    }
    found["regression by group"] = by_group_regression(known, seen, noise, found["linear inverse with intercept"])
    level = np.full(len(seen.rows), max(noise, ROUNDING))
    found["posterior mean"] = posterior_mean(known, seen, level, found["regression by group"])
    if forward is None or known.plain.shape[1] > MAX_REFINED_WINDOW:
        return found
    picks = [near[:, i] for i in range(min(N_STARTS, k))]
    if not per_group:
        anywhere = cKDTree(known.encoded).query(seen.rows, k=k)[1].reshape(-1, k)
        picks += [anywhere[:, i] for i in range(min(N_STARTS, k))]
    starts = [*(known.plain[pick] for pick in picks), found["posterior mean"], linear]
    if noise == 0:
        found["gauss-newton"] = multistart(forward, known, seen, starts)
    else:
        found["gauss-newton"] = gauss_newton(forward, seen.rows, seen.group, found["nearest neighbour"])[0]
        found["maximum a posteriori"] = most_probable(forward, known, seen, noise, found["posterior mean"])
    return found


def _linear(known: Dictionary, seen: Windows, intercept: bool, noise: float, per_group: bool) -> np.ndarray:
    if not per_group:
        return linear_inverse(known, seen.rows, intercept, noise)
    found = np.empty((len(seen.rows), known.plain.shape[1]))
    for label in np.unique(seen.group):
        rows = seen.group == label
        found[rows] = linear_inverse(known.of(np.flatnonzero(known.group == label)), seen.rows[rows], intercept, noise)
    return found


def most_probable(forward: Forward, known: Dictionary, seen: Windows, noise: float, start: np.ndarray) -> np.ndarray:
    """The most probable window given its noisy encoding, under a normal prior fitted to its group's own windows.

    Gauss-Newton on the residuals over the noise, with the prior's standardised deviation below them.
    """
    found = start.copy()
    for label in np.unique(seen.group):
        rows = np.flatnonzero(seen.group == label)
        own = known.of(np.flatnonzero((known.group == label) & (known.weight > 0)))
        if len(own.plain) <= own.plain.shape[1]:
            continue
        mean = np.average(own.plain, axis=0, weights=own.weight)
        spread = np.cov(own.plain.T, fweights=own.weight.astype(int)).reshape(2 * (own.plain.shape[1],))
        values, vectors = np.linalg.eigh(spread)
        whiten = vectors / np.sqrt(np.maximum(values, SMALLEST_SPREAD**2))

        def with_prior(
            windows: np.ndarray, group: np.ndarray, mean: np.ndarray = mean, whiten: np.ndarray = whiten
        ) -> np.ndarray:
            return np.hstack([forward(windows, group) / noise, (windows - mean) @ whiten])

        wanted = np.hstack([seen.rows[rows] / noise, np.zeros((len(rows), own.plain.shape[1]))])
        found[rows] = gauss_newton(with_prior, wanted, seen.group[rows], start[rows])[0]
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
        found, left = gauss_newton(forward, seen.rows[rows], seen.group[rows], start[rows])
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


def gauss_newton(
    forward: Forward, encoded: np.ndarray, group: np.ndarray, start: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Damped Gauss-Newton in the box [0, 1]; returns the windows and their mean squared residual per output."""
    x = np.clip(start.astype(np.float64), 0, 1)
    r = forward(x, group) - encoded
    loss = np.mean(r**2, axis=1)
    damping = np.full(len(x), 1e-3)
    active = np.flatnonzero(loss > SOLVED)
    for _ in range(ITERATIONS):
        if active.size == 0:
            break
        jacobian = _jacobian(forward, x[active], group[active], r[active] + encoded[active])
        normal = np.einsum("nki,nkj->nij", jacobian, jacobian)
        gradient = np.einsum("nki,nk->ni", jacobian, r[active])
        scale = damping[active, None, None] * np.eye(x.shape[1]) + RIDGE * np.eye(x.shape[1])
        step = np.linalg.solve(normal + scale, gradient[..., None])[..., 0]
        trial = np.clip(x[active] - step, 0, 1)
        trial_r = forward(trial, group[active]) - encoded[active]
        trial_loss = np.mean(trial_r**2, axis=1)
        better = trial_loss < loss[active]
        done = active[better]
        x[done], r[done], loss[done] = trial[better], trial_r[better], trial_loss[better]
        damping[active] = np.where(better, damping[active] / 5, damping[active] * 5)
        active = active[(loss[active] > SOLVED) & (damping[active] < 1e6)]
    return x, loss


def _jacobian(forward: Forward, x: np.ndarray, group: np.ndarray, value: np.ndarray) -> np.ndarray:
    """`(window, output, input)` by one-sided differences that stay in the box."""
    windows, inputs = x.shape
    signs = np.where(x > 0.5, -1.0, 1.0) * DIFFERENCE
    moved = np.repeat(x[None], inputs, axis=0)
    moved[np.arange(inputs), :, np.arange(inputs)] += signs.T
    outputs = forward(moved.reshape(-1, inputs), np.tile(group, inputs)).reshape(inputs, windows, -1)
    return np.moveaxis((outputs - value[None]) / signs.T[..., None], 0, 2)
