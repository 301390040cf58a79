"""Attacks that hit or miss, in three arms: on members, on people who are not in the artefact, and without the artefact.

The figure is the excess risk (r - c) / (1 - c) of Giomi et al., "A unified framework for quantifying privacy risk in
synthetic data" (PoPETs 2023, arXiv 2211.10459): r = share of hits on members, c = on the holdout control. What is true
of everybody hits both alike and counts nothing. Intervals: Clopper-Pearson with the effective sample size of the
clusters (Korn & Graubard, Survey Methodology 24, 1998) for each share, and the method of variance estimates recovery
for the ratio (1 - r) / (1 - c) (Donner & Zou, Statistical Methods in Medical Research 21, 2012).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import stats

from pipeline.audit.result import Controls, Figure, result
from pipeline.audit.scene import LeakageAttack, Scene
from pipeline.audit.statistics import CONTROL_LEVEL, LEVEL, Interval
from pipeline.core.errors import DataError
from pipeline.core.types import AttackResult, Json

STATISTIC = "excess_risk"
WIDEST = 0.10  # an interval wider than +- this does not decide
FOUND = 0.5  # a planted leak must show at least this excess
MIN_CLUSTERS = 10
CHOOSING_SHARE = 0.3  # of the clusters; the others are reported on


@dataclass(frozen=True)
class Hits:
    """Whether each try hit, `(try,)` bool, and to which subject or sample it belongs, `(try,)`.

    `record`: whom it hit, where several tries may hit the same person; -1 or anything for a miss.
    """

    hit: np.ndarray
    cluster: np.ndarray
    record: np.ndarray | None = None

    def take(self, clusters: np.ndarray) -> Hits:
        """The tries of these clusters."""
        rows = np.isin(self.cluster, clusters)
        return Hits(self.hit[rows], self.cluster[rows], None if self.record is None else self.record[rows])

    @property
    def n_records(self) -> int:
        """Different people who were hit; every hit counts as one where nobody said who it was."""
        return int(self.hit.sum()) if self.record is None else len(np.unique(self.record[self.hit]))

    @property
    def n_clusters(self) -> int:
        """Subjects or samples."""
        return len(np.unique(self.cluster))


@dataclass(frozen=True)
class Arms:
    """One attack's tries in its three arms; `scale` = how many times fewer targets the control offered."""

    main: Hits
    control: Hits
    baseline: Hits
    scale: float = 1.0

    def take(self, main: np.ndarray, control: np.ndarray) -> Arms:
        """The tries of these clusters; the baseline is tried on members."""
        return Arms(self.main.take(main), self.control.take(control), self.baseline.take(main), self.scale)


@dataclass(frozen=True)
class Excess:
    """What is reached by the variant that was chosen on other clusters."""

    variant: str
    figure: Interval
    main: Interval
    control: Interval
    baseline: Interval
    n: int  # subjects or samples in the main arm
    n_control: int
    quiet: bool  # no excess at the level at which a control is called broken
    hit: int = 0  # different people behind the hits on members, and
    hit_others: int = 0  # on the control


def clustered_share(hits: Hits, level: float = LEVEL) -> Interval:
    """Share of hits with the Korn-Graubard interval over clusters; people hit repeatedly count once for its width.

    Raises:
        DataError: no try.
    """
    n = len(hits.hit)
    if n == 0:
        raise DataError("a share needs at least one try")
    codes = np.unique(hits.cluster, return_inverse=True)[1]
    sums, sizes = np.bincount(codes, weights=hits.hit), np.bincount(codes)
    p, m = float(hits.hit.mean()), len(sums)
    effective = float(m) if m > 1 else 1.0  # without a hit or a miss the tries tell nothing of how alike they are
    if 0 < p < 1 and m > 1:
        variance = m / (m - 1) * float(((sums - p * sizes) ** 2).sum()) / n**2
        effective = min(float(n), p * (1 - p) / variance) if variance > 0 else float(n)
        effective = min(effective, n * hits.n_records / float(hits.hit.sum()))  # no more hits than people
    tail, k = (1 - level) / 2, p * effective
    low = 0.0 if k <= 0 else float(stats.beta.ppf(tail, k, effective - k + 1))
    high = 1.0 if k >= effective else float(stats.beta.ppf(1 - tail, k + 1, effective - k))
    return Interval(p, min(low, p), max(high, p))


def excess(arms: Arms, level: float = LEVEL) -> tuple[Interval, Interval, Interval]:
    """(r - c) / (1 - c) and the two shares behind it, each with its interval; never below -1."""
    main, control = clustered_share(arms.main, level), clustered_share(arms.control, level)
    control = Interval(*(min(1.0, arms.scale * edge) for edge in (control.value, control.low, control.high)))
    missed, missed_control = _one_minus(main), _one_minus(control)
    if missed_control.value <= 0:
        return Interval(0.0, -1.0, 1.0), main, control
    low, high = ratio_limits(missed, missed_control)
    value = 1 - missed.value / missed_control.value
    return Interval(max(-1.0, value), max(-1.0, min(1 - high, value)), max(1 - low, value, -1.0)), main, control


def ratio_limits(top: Interval, bottom: Interval) -> tuple[float, float]:
    """Limits of top / bottom from the limits of two independent estimates (MOVER-R)."""

    def root(a: float, b: float) -> float:
        return math.sqrt(max(0.0, (top.value * bottom.value) ** 2 - a * b))

    product = top.value * bottom.value
    under, over = bottom.high * (2 * bottom.value - bottom.high), bottom.low * (2 * bottom.value - bottom.low)
    part = top.low * (2 * top.value - top.low)
    low = top.low / bottom.high if under <= 0 else (product - root(part, under)) / under
    part = top.high * (2 * top.value - top.high)
    high = (product + root(part, over)) / over if over > 0 else math.inf
    return max(0.0, low), high


def _one_minus(share: Interval) -> Interval:
    return Interval(1 - share.value, 1 - share.high, 1 - share.low)


def best_variant(variants: Mapping[str, Arms], rng: np.random.Generator) -> Excess:
    """The variant with the largest excess on three tenths of the clusters, as it does on the others.

    Largest by its lower bound: where nearly everybody is hit, a small difference makes any excess. Not crossed over: a
    variant that both parts choose would be reported on what it was chosen by, twice, and without a leak the excess was
    above chance in 10 audits of 100 instead of 5.

    Raises:
        DataError: no variant, or an arm with fewer than two clusters.
    """
    if not variants:
        raise DataError("there is no attack to choose from")
    first = next(iter(variants.values()))
    main = _parts(first.main.cluster, rng)
    # one try for either arm: what is no hit on a member may be one on another, so that the arms must be divided alike
    shared = np.array_equal(first.main.cluster, first.control.cluster)
    control = main if shared else _parts(first.control.cluster, rng)
    chosen = _largest({name: arms.take(main[0], control[0]) for name, arms in variants.items()})
    arms = variants[chosen].take(main[1], control[1])
    figure, hits, others = excess(arms)
    return Excess(
        variant=chosen,
        figure=figure,
        main=hits,
        control=others,
        baseline=clustered_share(arms.baseline),
        n=arms.main.n_clusters,
        n_control=arms.control.n_clusters,
        quiet=excess(arms, CONTROL_LEVEL)[0].low <= 0,
        hit=arms.main.n_records,
        hit_others=arms.control.n_records,
    )


def _largest(part: Mapping[str, Arms]) -> str:
    return max(part, key=lambda name: excess(part[name])[0].low)


def reported(clusters: int) -> int:
    """On how many clusters a figure rests: all but those on which its variant is chosen."""
    return clusters - max(1, int(CHOOSING_SHARE * clusters))


def _parts(clusters: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """For choosing and for reporting."""
    labels = rng.permutation(np.unique(clusters))
    if len(labels) < 2:
        raise DataError("choosing and reporting need two clusters")
    few = len(labels) - reported(len(labels))
    return labels[:few], labels[few:]


@dataclass(frozen=True)
class Told:
    """How a result is told: in which words; `unit` is what was counted, `statistic` its figure.

    `gates`: the figure decides when it can, that is when its interval is no wider than +- `widest`, half of what the
    shipped policies allow, or when even its lower bound is above twice that. Else it is held back: few people would
    stop every release, and an attack that a policy does not ask for by name is none to wait for.
    """

    does: str
    unit: str
    statistic: str = STATISTIC
    gates: bool = False
    widest: float = WIDEST


def excess_result(
    scene: Scene,
    attack: LeakageAttack,
    told: Told,
    found: Excess,
    positive: Excess,
    negative: Excess,
    detail: Json,
    p_value: float | None = None,
) -> AttackResult:
    """The result of an attack, its planted leak and its set of strangers."""
    powered = found.figure.half_width <= told.widest and min(found.n, found.n_control) >= MIN_CLUSTERS
    decides = told.gates and (powered or found.figure.low > 2 * told.widest)
    held_back = told.gates and not decides
    return result(
        scene,
        attack,
        Figure(told.statistic, found.figure, found.n, powered, gates=decides, p_value=p_value, held_back=held_back),
        Controls(negative.figure.value, positive.figure.value, positive.figure.value >= FOUND and negative.quiet),
        summary=f"From {scene.artefact} an attacker {told.does} in {found.main.value:.1%} of their tries on members "
        f"and {found.control.value:.1%} on others: excess risk {found.figure} ({found.n} {told.unit}); without the "
        f"artefact {found.baseline.value:.1%}.",
        detail={
            "variant": found.variant,
            "member_rate": _rounded(found.main),
            "control_rate": _rounded(found.control),
            "baseline_rate": _rounded(found.baseline),
            "n_control": found.n_control,
            "positive_control_variant": positive.variant,
            "negative_control": _rounded(negative.figure),
            "unit": told.unit,
            **detail,
        },
    )


def _rounded(share: Interval) -> list[float]:
    return [round(share.value, 4), round(share.low, 4), round(share.high, 4)]
