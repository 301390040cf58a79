"""How much of the targets' values an attack recovered: R2 against the guess that needs no encoding.

R2 = 1 - SSE / SST over all values of all targets. SST is about each channel's mean over the attacker's own patients,
so that knowing the population earns nothing; channels weigh by their variance, and a channel that never varies
weighs nothing. "Moving" values are those in windows that are not constant: carried-forward values are easier to
recover, so both figures are given.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.audit.scene import MIN_SUBJECTS
from pipeline.audit.statistics import Interval, bootstrap_r2, sums_by_subject


@dataclass(frozen=True)
class Target:
    """What is to be recovered: series `(stay, step, channel)`, moving mask alike, guess `(channel,)`, subjects."""

    values: np.ndarray
    moving: np.ndarray
    guess: np.ndarray
    subjects: np.ndarray

    @property
    def n(self) -> int:
        """Stays."""
        return len(self.values)


def r2(target: Target, estimate: np.ndarray, mask: np.ndarray | None = None) -> float:
    """R2 of an estimate, over `mask` when given."""
    weight = 1.0 if mask is None else mask
    errors = float((weight * (target.values - estimate) ** 2).sum())
    totals = float((weight * (target.values - target.guess) ** 2).sum())
    return 1 - errors / totals if totals > 0 else 0.0


def r2_interval(
    target: Target, estimate: np.ndarray, rng: np.random.Generator, n_bootstrap: int, mask: np.ndarray | None = None
) -> Interval:
    """R2 with its subject-bootstrap 95 % interval."""
    weight = 1.0 if mask is None else mask
    errors = (weight * (target.values - estimate) ** 2).sum(axis=(1, 2), dtype=np.float64)
    totals = (weight * (target.values - target.guess) ** 2).sum(axis=(1, 2), dtype=np.float64)
    return bootstrap_r2(
        sums_by_subject(errors, target.subjects), sums_by_subject(totals, target.subjects), rng, n_bootstrap
    )


def by_channel(target: Target, estimate: np.ndarray, channels: tuple[str, ...]) -> dict[str, float]:
    """R2 of each channel that varies."""
    errors = ((target.values - estimate) ** 2).sum(axis=(0, 1), dtype=np.float64)
    totals = ((target.values - target.guess) ** 2).sum(axis=(0, 1), dtype=np.float64)
    return {
        name: round(float(1 - error / total), 4)
        for name, error, total in zip(channels, errors, totals, strict=True)
        if total > 0
    }


def most_exposed_decile(target: Target, estimate: np.ndarray) -> float | None:
    """R2 over the tenth of the subjects who are recovered best; None where that would be a small cell."""
    errors = sums_by_subject(((target.values - estimate) ** 2).sum(axis=(1, 2), dtype=np.float64), target.subjects)
    totals = sums_by_subject(((target.values - target.guess) ** 2).sum(axis=(1, 2), dtype=np.float64), target.subjects)
    n = len(errors) // 10
    if n < MIN_SUBJECTS:
        return None
    share = np.divide(errors, totals, out=np.ones_like(errors), where=totals > 0)
    best = np.argsort(share, kind="stable")[:n]
    return float(1 - errors[best].sum() / totals[best].sum()) if totals[best].sum() > 0 else None
