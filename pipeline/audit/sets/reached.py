"""What a membership attack reached, and how that is told: an AUROC, and a share named at a small false-alarm rate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipeline.audit.multiplicity import p_of_hits
from pipeline.audit.result import Figure
from pipeline.audit.statistics import (
    CONTROL_LEVEL,
    EXPECTED_FALSE_POSITIVES,
    Interval,
    clopper_pearson,
    epsilon_ceiling,
    smallest_fpr,
)

FPR = 0.01
POWERED_HALF_WIDTH = 0.10  # an AUROC interval wider than +- this does not decide
_RATES = {0.01: "tpr_at_1pct_fpr", 0.001: "tpr_at_01pct_fpr"}


@dataclass(frozen=True)
class Reached:
    """What the chosen scores reach on the reporting half."""

    auroc_score: str
    auroc: Interval
    p_value: float  # one-sided, AUROC above one half
    tpr_score: str
    fpr: float  # asked for
    tpr: Interval
    realised_fpr: Interval
    members: int
    others: int
    epsilon: float  # lower bound
    roc: tuple[tuple[float, float], ...]  # (FPR, TPR) of the TPR's score

    @property
    def n(self) -> int:
        """Subjects of either kind."""
        return self.members + self.others

    @property
    def names_nobody(self) -> bool:
        """No share above the false alarms at the level at which a control is called broken."""
        low = clopper_pearson(round(self.tpr.value * self.members), self.members, CONTROL_LEVEL).low
        return low <= max(0.05, self.realised_fpr.high)

    def ranked(self, p_value: float | None) -> Figure:
        """The AUROC, which decides."""
        powered = self.auroc.half_width <= POWERED_HALF_WIDTH
        return Figure("auroc", self.auroc, n=self.n, powered=powered, gates=True, p_value=p_value)

    def named(self, at: float = FPR, *, gates: bool) -> Figure:
        """The share named at a false-alarm rate of `at`, or, under-powered, at the smallest rate that n supports."""
        measurable = self.fpr <= at
        hits, alarms = round(self.tpr.value * self.members), round(self.realised_fpr.value * self.others)
        return Figure(
            _RATES[at] if measurable else "tpr_at_smallest_fpr",
            self.tpr,
            n=self.n,
            powered=measurable,
            gates=gates,
            p_value=p_of_hits(hits, self.members, alarms, self.others),
        )

    def facts(self) -> dict[str, Any]:
        """What both figures show beside themselves."""
        return {
            "auroc_score": self.auroc_score,
            "tpr_score": self.tpr_score,
            "fpr": self.fpr,
            "realised_fpr": round(self.realised_fpr.value, 4),
            "n_members": self.members,
            "n_others": self.others,
            "epsilon_lower_bound": round(self.epsilon, 4),
            "epsilon_ceiling": round(epsilon_ceiling(self.members, self.others), 4),
        }

    def curve(self) -> dict[str, Any]:
        """The ROC as it is shown."""
        return {"roc": {"fpr": [fpr for fpr, _ in self.roc], "tpr": [tpr for _, tpr in self.roc]}}

    def not_measurable(self, *rates: float) -> dict[str, Any]:
        """How many non-members the first of these rates would need for which there were too few."""
        smallest = smallest_fpr(self.others)
        told = [
            f"{rate:.1%} FPR needs {round(EXPECTED_FALSE_POSITIVES / rate)} non-members, {self.others} were there: the "
            f"smallest supportable FPR is {smallest:.2%}"
            for rate in rates
            if smallest > rate
        ]
        return {"not_measurable": told[0]} if told else {}
