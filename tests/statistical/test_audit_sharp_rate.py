"""TPR at 0.1 % FPR: measured where enough people are there, else the smallest rate that they support is named."""

from __future__ import annotations

import numpy as np

from pipeline.audit.scene import CondensedScene
from pipeline.audit.sets.membership import Membership
from pipeline.core.types import AttackResult, CondensedSet, Provenance, Task

STEPS, CHANNELS = 4, 3


def people(n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(size=(n, STEPS, CHANNELS)).astype(np.float32)


def found(n_others: int) -> dict[str, AttackResult]:
    """A set of 100 of the 400 members."""
    members, holdout = people(400, 1), people(n_others, 2)
    condensed = CondensedSet(
        features=members[:100],
        labels=np.zeros((100, 1), np.float32),
        channels=("a", "b", "c"),
        tasks=(Task("death"),),
        step_hours=1.0,
        transforms=(),
        method="test",
        starts_from_records=False,
        guarantee=None,
        provenance=Provenance("test"),
    )
    ids = 10_000 + np.arange(n_others)
    scene = CondensedScene("set", "0" * 64, condensed, members, holdout, np.arange(400), ids)
    return {result.statistic: result for result in Membership().run(scene, 0)}


def test_enough_people_show_one_in_a_thousand() -> None:
    """30 % of 8,800 are the reference; 3,080 others report, of whom 3 are expected at 0.1 %."""
    results = found(8800)
    assert set(results) == {"auroc", "tpr_at_1pct_fpr", "tpr_at_01pct_fpr"}
    sharp = results["tpr_at_01pct_fpr"]
    assert sharp.powered
    assert sharp.detail["fpr"] == 0.001
    assert "not_measurable" not in sharp.detail
    assert sharp.low > 0.1  # a quarter of the members lie in the set verbatim
    assert sharp.controls_held


def test_fewer_people_are_told_which_rate_they_support() -> None:
    """900 others: 315 report, so 1 % is supported and 0.1 % is not."""
    results = found(900)
    assert set(results) == {"auroc", "tpr_at_1pct_fpr"}
    assert results["tpr_at_1pct_fpr"].detail["smallest_supportable_fpr"] == round(3 / 315, 5)
    assert "needs 3000 non-members, 315 were there" in results["tpr_at_1pct_fpr"].detail["not_measurable"]
