"""Rules that other distributions brought: looked at after the gate's own, and only ever one more reason."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import get_args

from pipeline.core.redaction import location
from pipeline.core.types import LeakageReport, UtilityReport, Verdict
from pipeline.sharing.policy.load import Policy
from pipeline.sharing.policy.rules import RULES, Artefact, Circumstances, Finding


def added_findings(
    policy: Policy,
    artefact: Artefact,
    reports: Sequence[LeakageReport],
    utility: UtilityReport | None,
    circumstances: Circumstances,
) -> Iterator[Finding]:
    """Of the rules that others brought: one more reason each, and no way to overrule a reason that is there.

    A rule that fails, is silent or gives something else than findings is INCONCLUSIVE.
    """
    for name, rule in circumstances.rules.items():
        if rule in RULES.values():
            continue
        try:
            found = tuple(rule(policy, artefact, reports, utility, circumstances))
        except Exception as error:  # whoever wrote it: where, and not its text
            yield Finding("INCONCLUSIVE", f"rule {name} failed with {location(error)}")
            continue
        sound = all(isinstance(item, Finding) and item.verdict in get_args(Verdict) for item in found)
        if not (found and sound):
            yield Finding("INCONCLUSIVE", f"rule {name} gave no finding, or something else")
            continue
        yield from (Finding(item.verdict, f"rule {name}: {item.reason}") for item in found)
