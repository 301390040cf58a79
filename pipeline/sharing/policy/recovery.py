"""What a recipient recovers, as a statement that a person reads and countersigns before anything leaves.

Under a data-use agreement figures are printed and accepted instead of limited, so somebody has to have read them. The
statement holds upper bounds, rounded up as the policy says; its code is bound to every word of it and to the policy,
and a new audit with other bounds asks for a new countersignature.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, final

from pipeline.core.types import LeakageReport
from pipeline.sharing.canonical import canonical, sha256_hex
from pipeline.sharing.policy.figures import DecidingFigure, DecidingStatistic, deciding, published_bound
from pipeline.sharing.policy.load import Policy

CODE_LENGTH: Final = 16
_HOLDS: Final = {
    "T0": "has only the release",
    "T1": "has patients of their own",
    "T2": "knows part of a patient's record",
    "T3": "has some records plain and encoded",
    "T4": "holds the key",
    "T5": "has several releases",
    "T6": "has records to look up",
    "T7": "has a model trained on it",
    "bytes": "reads the files",
}
_REACHES: Final = {
    DecidingStatistic.R2: "recovers up to {:g} of the variation (R2)",
    DecidingStatistic.AUROC: "tells people in it from others with AUROC up to {:g}",
    DecidingStatistic.COUNT: "finds up to {:g} copies or identifiers",
}


@final
@dataclass(frozen=True)
class Recovery:
    """The statement, a sentence for each threat model and kind of figure, and the code that stands for it."""

    sentences: tuple[str, ...]
    code: str


def recovery(policy: Policy, reports: Sequence[LeakageReport]) -> Recovery:
    """The statement of everything that the policy prints and does not limit; figures that are none are said to be."""
    worst: dict[tuple[str, DecidingStatistic], DecidingFigure] = {}
    for result in (result for report in reports for result in report.results):
        figure = deciding(result)
        if figure is None:
            continue
        limit = policy.limit(result.attack, figure.statistic)
        if limit is None or limit.max_upper is not None:
            continue
        key = (result.threat_model, figure.statistic)
        if key not in worst or not figure.is_number or result.high > worst[key].result.high:
            worst[key] = figure
    sentences = tuple(_sentence(policy, worst[key]) for key in sorted(worst)) or ("nothing was measured",)
    return Recovery(sentences, sha256_hex(canonical([policy.digest, *sentences]))[:CODE_LENGTH])


def _sentence(policy: Policy, figure: DecidingFigure) -> str:
    result = figure.result
    who = f"a recipient who {_HOLDS.get(result.threat_model, 'is not described')}"
    if not figure.is_number:
        return f"{who}: {result.attack} gave no figure"
    bound = published_bound(result.statistic, result.high, policy.rounding, policy.small_cell)
    told = _REACHES.get(figure.statistic, "reaches " + result.statistic + " up to {:g}")
    return f"{who} {told.format(bound)}, by {result.attack.replace('_', ' ')}"
