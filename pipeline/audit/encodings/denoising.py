"""What an attacker does about noise on the encodings: averages what stays the same, and learns from his own patients.

Carried-forward values encode to the same expectation window after window, so that a run of n equal windows holds its
value with noise smaller by sqrt(n); statics are one run of the whole stay.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import stats

from pipeline.audit.encodings.inverse import Dictionary, Windows, posterior_mean
from pipeline.audit.encodings.windows import Forward, Layout
from pipeline.audit.scene import EncodingScene

SAME_RUN = 0.99  # two windows count as equal when noise alone makes them differ as much in one case of a hundred
SMOOTHED_STAYS = 100  # of the attacker's own, encoded with noise of his own making
PENALTIES = (1e-3, 1e-2, 1e-1, 1.0)  # of the smoothing, relative to the mean eigenvalue; chosen on a third of them

Estimator = Callable[[np.ndarray], np.ndarray]
"""(stay * lane * slot, output) noisy encoded windows -> (stay, step, channel) estimate."""


def output_noise(scene: EncodingScene, encoded: np.ndarray) -> float:
    """The standard deviation of the noise on an output, as the release tells it; 0 = none.

    Finite shots: an output z has variance (1 - z^2) / shots; the mean over `encoded`, noiseless windows, is taken.
    """
    variance = scene.noise_sd**2
    if scene.shots is not None:
        variance += float(np.mean(np.maximum(1 - encoded**2, 0))) / scene.shots
    return float(np.sqrt(variance))


def run_means(cells: np.ndarray, layout: Layout, noise: float) -> tuple[np.ndarray, np.ndarray]:
    """Consecutive windows of a lane that differ by no more than noise, replaced by their mean.

    Returns:
        the means, in the shape of `cells` `(window, output)`, and each one's noise `(window,)`.
    """
    lined = cells.reshape(-1, layout.slots, layout.width)
    limit = float(stats.chi2.ppf(SAME_RUN, layout.width)) * noise**2
    run = np.zeros(lined.shape[:2], np.int64)
    mean, count = lined[:, 0].copy(), np.ones(len(lined))
    for slot in range(1, layout.slots):
        same = ((lined[:, slot] - mean) ** 2).sum(axis=1) <= limit * (1 + 1 / count)
        run[:, slot] = run[:, slot - 1] + ~same
        count = np.where(same, count + 1, 1)
        mean = np.where(same[:, None], mean + (lined[:, slot] - mean) / count[:, None], lined[:, slot])
    label = (run + (np.arange(len(run)) * layout.slots)[:, None]).ravel()
    size = np.bincount(label)
    sums = np.stack([np.bincount(label, weights=column) for column in cells.T], axis=1)
    return sums[label] / size[label, None], noise / np.sqrt(size[label])


def averaged_runs(
    known: Dictionary, cells: np.ndarray, group: np.ndarray, layout: Layout, noise: float, otherwise: np.ndarray
) -> np.ndarray:
    """The posterior mean of every window given its run's mean: `(window, input)`."""
    means, level = run_means(cells, layout, noise)
    seen = Windows(means, group, np.arange(len(means)), np.ones(len(means)))
    return posterior_mean(known, seen, level, otherwise)


def smoothed(
    scene: EncodingScene,
    layout: Layout,
    forward: Forward,
    noise: float,
    estimator: Estimator,
    estimate: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    """`estimate` improved by what the attacker learns on his own patients: ridge from estimated to true series.

    He encodes them, adds noise as the release does, runs the estimator, and regresses every channel's true series on
    its estimated one.
    """
    own = scene.own[rng.permutation(len(scene.own))[:SMOOTHED_STAYS]]
    cells = forward(layout.cut(own), layout.groups(len(own)))
    made = estimator(cells + noise * rng.standard_normal(cells.shape))
    return learned_smoothing(made, own, estimate)


def learned_smoothing(made: np.ndarray, own: np.ndarray, estimate: np.ndarray) -> np.ndarray:
    """`estimate` through the ridge regression, channel by channel, of the `own` series on what was `made` of them."""
    found = np.empty_like(estimate, dtype=np.float64)
    for channel in range(own.shape[2]):
        found[:, :, channel] = _ridge(made[:, :, channel], own[:, :, channel], estimate[:, :, channel])
    return np.clip(found, 0, 1)


def _ridge(features: np.ndarray, wanted: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Ridge regression with its penalty chosen on the last third of the rows."""
    cut = max(1, 2 * len(features) // 3)
    errors = [
        float(((_fitted(features[:cut], wanted[:cut], penalty)(features[cut:]) - wanted[cut:]) ** 2).sum())
        for penalty in PENALTIES
    ]
    return _fitted(features, wanted, PENALTIES[int(np.argmin(errors))])(asked)


def _fitted(features: np.ndarray, wanted: np.ndarray, penalty: float) -> Callable[[np.ndarray], np.ndarray]:
    centre, middle = features.mean(axis=0), wanted.mean(axis=0)
    rows = features - centre
    gram = rows.T @ rows
    gram += np.eye(len(gram)) * (penalty * np.trace(gram) / len(gram) + 1e-12)
    weights = np.linalg.solve(gram, rows.T @ (wanted - middle))
    return lambda asked: np.asarray(middle + (asked - centre) @ weights)
