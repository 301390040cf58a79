"""What changed between two audits: the interval of the difference decides; what fell silent counts as worse."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from scipy import stats

from pipeline.audit.statistics import clopper_pearson
from pipeline.core.changes import CHANCE, changes, worse
from pipeline.core.types import AttackResult, LeakageReport, Provenance


def result(rate: float, low: float, high: float, statistic: str = "auroc", gates: bool = True) -> AttackResult:
    return AttackResult(
        "a", "T6", "set", statistic, rate, low, high, 100, 0.5, 1.0, 1.0, gates, "s", True, True, False, None
    )


def report(*results: AttackResult, artefact: str = "set") -> LeakageReport:
    return LeakageReport(artefact, "0" * 64, results, (), True, Provenance("audit"))


def direction(before: AttackResult, after: AttackResult) -> str:
    (found,) = changes([report(before)], [report(after)])
    return found.direction


def test_a_figure_moves_when_the_difference_excludes_zero() -> None:
    assert direction(result(0.5, 0.4, 0.6), result(0.6, 0.5, 0.7)) == "same"
    assert direction(result(0.5, 0.45, 0.55), result(0.6, 0.55, 0.65)) == "worse"
    assert direction(result(0.6, 0.55, 0.65), result(0.5, 0.45, 0.55)) == "better"
    assert direction(result(0.5, 0.45, 0.55), result(0.57, 0.52, 0.62)) == "same"  # 0.07 < 0.05 * sqrt 2 = 0.0707
    assert direction(result(0.5, 0.45, 0.55), result(0.571, 0.521, 0.621)) == "worse"


def test_counts_move_when_they_move() -> None:
    assert direction(result(0, 0, 0, "count"), result(1, 1, 1, "count")) == "worse"
    assert direction(result(1, 1, 1, "count"), result(1, 1, 1, "count")) == "same"


def test_rows_of_one_attack_are_matched_in_their_order() -> None:
    before = report(result(0, 0, 0, "count"), result(5, 5, 5, "count"))
    after = report(result(0, 0, 0, "count"), result(6, 6, 6, "count"))
    assert [change.direction for change in changes([before], [after])] == ["same", "worse"]


def test_what_is_no_longer_measured_counts_as_worse_if_it_decided() -> None:
    decided, shown = result(0.5, 0.4, 0.6), result(0.5, 0.4, 0.6, "member_excess", gates=False)
    assert [change.direction for change in worse([report(decided, shown)], [report()])] == ["gone"]
    assert not worse([report()], [report(decided)])
    broken = dataclasses.replace(decided, high=math.nan)
    assert [change.direction for change in worse([report(decided)], [report(broken)])] == ["not comparable"]


def test_unchanged_figures_look_worse_as_seldom_as_is_said() -> None:
    """2,000 pairs of binomial shares of one truth: at most CHANCE look worse, plus four standard errors."""
    pairs = 2000
    rng = np.random.default_rng(0)
    hits = rng.binomial(300, 0.3, size=(pairs, 2))
    known = {int(hit): clopper_pearson(int(hit), 300) for hit in np.unique(hits)}
    moved = 0
    for one, two in hits:
        first, second = known[int(one)], known[int(two)]
        before, after = (result(share.value, share.low, share.high) for share in (first, second))
        moved += direction(before, after) == "worse"
    assert moved <= stats.binom.ppf(stats.norm.cdf(4), pairs, CHANCE)
