"""Holm by hand, p-values of figures, and the family of a report."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from pipeline.audit.multiplicity import holm, leaks_found, p_of_hits, p_value, with_family
from pipeline.audit.sets.reached import Reached
from pipeline.audit.statistics import Interval
from pipeline.core.errors import DataError
from pipeline.core.types import AttackResult


def figure(
    statistic: str, rate: float, low: float, high: float, gates: bool = True, p_value: float | None = None
) -> AttackResult:
    figures = rate, low, high, 100, None, None, None
    return AttackResult("attack", "T6", "set", statistic, *figures, gates, "", True, True, False, p_value)


def test_holm_by_hand() -> None:
    """Sorted .01 .02 .04: times 3, 2, 1, and never falling."""
    assert holm([0.04, 0.01, 0.02]).tolist() == pytest.approx([0.04, 0.03, 0.04])
    assert holm([0.5, 0.9]).tolist() == [1.0, 1.0]
    assert holm([]).tolist() == []
    with pytest.raises(DataError, match="between 0 and 1"):
        holm([0.1, float("nan")])


def test_holm_keeps_the_family_at_its_level_even_where_all_figures_are_one() -> None:
    """4,000 families of six: at most the 99.9 % quantile of the binomial alarm, independent figures or equal ones."""
    draws = np.random.default_rng(0).uniform(size=(4000, 6))
    allowed = stats.binom.ppf(0.999, 4000, 0.05)
    assert 100 < sum(holm(row).min() <= 0.05 for row in draws) <= allowed
    assert sum(holm(np.repeat(row[:1], 6)).min() <= 0.05 for row in draws) <= allowed


def test_p_values_follow_the_figure() -> None:
    assert p_value(figure("auroc", 0.5, 0.45, 0.55)) == pytest.approx(0.5)
    assert p_value(figure("auroc", 0.55, 0.5, 0.6)) == pytest.approx(0.025, abs=1e-9)
    assert p_value(figure("auroc", 0.55, 0.5, 0.6, p_value=0.2)) == 0.2
    assert p_value(figure("r2", 0.98, 0.97, 0.99)) < 1e-10
    assert p_value(figure("count", 0.0, 0.0, 0.0)) == 1.0
    assert p_value(figure("count", 1.0, 1.0, 1.0)) == 0.0  # nothing is expected by chance
    assert p_value(figure("count", 1.0, 1.0, 1.0, p_value=0.4)) == 0.4
    assert p_value(figure("auroc", float("nan"), 0.5, 0.6)) is None
    assert p_value(figure("something else", 1.0, 0.9, 1.1)) is None


def test_a_true_positive_rate_is_compared_with_the_false_alarms_there_were() -> None:
    some = Interval(0.5, 0.4, 0.6), 0.5, "score"
    reached = Reached("score", *some, 0.01, Interval(0.05, 0.03, 0.08), Interval(0.01, 0.0, 0.03), 400, 300, 0.0, ())
    assert reached.named(gates=True).p_value == p_of_hits(20, 400, 3, 300)
    assert p_of_hits(20, 400, 3, 300) == pytest.approx(
        stats.fisher_exact([[20, 380], [3, 297]], alternative="greater").pvalue
    )
    assert p_value(figure("tpr_at_1pct_fpr", 0.05, 0.03, 0.08)) is None


def test_only_deciding_figures_are_the_family() -> None:
    results = (
        figure("auroc", 0.55, 0.51, 0.59),
        figure("auroc", 0.50, 0.45, 0.55),
        figure("auroc", 0.90, 0.80, 1.00, gates=False),
        figure("auroc", 0.80, 0.70, 0.90),
    )
    found = with_family(results)
    assert found[2].p_value_of_the_family is None
    assert found[0].p_value_of_the_family == pytest.approx(2 * p_value(results[0]))
    assert leaks_found(results) == (found[0], found[3])
