"""What changed from one audit to the next, beyond what chance explains.

Two estimates p1 [l1, u1] and p2 [l2, u2] differ by more than their 95 % intervals allow when
p2 - p1 > sqrt((p2 - l2)^2 + (u1 - p1)^2): the lower limit of the difference's interval by the method of variance
estimates recovery (Zou and Donner, Statistics in Medicine 2008). Figures without an interval, such as counts, differ
when they differ. With many figures about 2.5 in 100 cross the line by chance; whoever shows changes says so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, final

from pipeline.core.types import AttackResult, LeakageReport

CHANCE: Final = 0.025  # of an unchanged figure to look worse

Direction = Literal["worse", "better", "same", "new", "gone", "not comparable"]
Key = tuple[str, str, str, str, int]
"""Artefact, attack, threat model, statistic, and which of several such rows."""


@final
@dataclass(frozen=True)
class Change:
    """One figure in two audits; None where an audit does not have it."""

    key: Key
    before: AttackResult | None
    after: AttackResult | None
    direction: Direction

    @property
    def sentence(self) -> str:
        """For a log or a reason of the gate: names and figures, larger = more leakage."""
        artefact, attack, threat_model, statistic, place = self.key
        step = f", row {place + 1}" if place else ""
        name = f"{attack} on {artefact} ({threat_model}), {statistic}{step}"
        return f"{name}: {_told(self.before)} before, {_told(self.after)} now, {self.direction}"


def changes(before: Sequence[LeakageReport], after: Sequence[LeakageReport]) -> tuple[Change, ...]:
    """Every figure of either audit, matched by artefact, attack, threat model, statistic and order of appearance."""
    old, new = figures(before), figures(after)
    keys = [*new, *(key for key in old if key not in new)]
    return tuple(Change(key, old.get(key), new.get(key), _direction(old.get(key), new.get(key))) for key in keys)


def worse(before: Sequence[LeakageReport], after: Sequence[LeakageReport]) -> tuple[Change, ...]:
    """The figures that got worse, and those that may decide and are no longer measured."""
    return tuple(
        change
        for change in changes(before, after)
        if change.direction in ("worse", "not comparable")
        or (change.direction == "gone" and change.before is not None and change.before.gates)
    )


def figures(reports: Sequence[LeakageReport]) -> Mapping[Key, AttackResult]:
    """All results by key, in their order."""
    found: dict[Key, AttackResult] = {}
    for report in reports:
        for result in report.results:
            head = (report.artefact, result.attack, result.threat_model, result.statistic)
            place = sum(key[:4] == head for key in found)
            found[(*head, place)] = result
    return found


def _direction(before: AttackResult | None, after: AttackResult | None) -> Direction:
    if before is None or after is None:
        return "new" if before is None else "gone"
    if not all(map(math.isfinite, (before.rate, before.low, before.high, after.rate, after.low, after.high))):
        return "not comparable"
    if _exceeds(before, after):
        return "worse"
    return "better" if _exceeds(after, before) else "same"


def _exceeds(smaller: AttackResult, larger: AttackResult) -> bool:
    reach = math.hypot(larger.rate - larger.low, smaller.high - smaller.rate)
    return larger.rate - smaller.rate > reach + 1e-12


def _told(result: AttackResult | None) -> str:
    if result is None:
        return "not measured"
    if result.low == result.high:
        return f"{result.rate:.3g}"
    return f"{result.rate:.3g} [{result.low:.3g}, {result.high:.3g}]"
