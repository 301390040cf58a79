"""What is published of the audit of a release with a guarantee: a table that follows from its policy alone.

The audit's own rows are functions of patients that no account covers: one person more or less decides which attack had
enough people to run, and at which false-positive rate. So the rows are those that the policy names, whatever ran; the
gate's PASS says that each limit was kept. Writer and verifier make the table from policy.json; another is refused.

Standard library only: the verifier imports it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pipeline.sharing.layout import LEAKAGE_FORMAT

ANY: Final = "*"


def fixed_audit(policy: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """leakage.json without the payload's digest: a row for each limit of the policy and each attack that it requires.

    `policy` is the content of policy.json, `kind` the release's. Rows are sorted; "*" = all.
    """
    named = {(limit["attack"], limit["statistic"]) for limit in policy["limits"]}
    named |= {_pair(name) for name in policy["required"][kind]}
    return {
        "format": LEAKAGE_FORMAT,
        "policy": policy["name"],
        "verdict": "PASS",
        "controls_held": True,
        "rounding": None,
        "attacks": [_row(policy, *pair) for pair in sorted(named)],
        "not_run": [],
    }


def ceiling(policy: Mapping[str, Any], attack: str, statistic: str) -> tuple[bool, float | None]:
    """Has the policy a limit for this figure, and the most particular one's largest upper bound (None = any)."""
    found = [
        limit
        for limit in policy["limits"]
        if limit["attack"] in (attack, ANY) and limit["statistic"] in (statistic, ANY)
    ]
    return bool(found), max(found, key=_particular)["max_upper"] if found else None


def _row(policy: Mapping[str, Any], attack: str, statistic: str) -> dict[str, Any]:
    limit = ceiling(policy, attack, statistic)[1]
    judged = {"verdict": "PASS", "limit": limit, "upper_bound": limit}
    return {"attack": attack, "threat_model": ANY, "statistic": statistic, **judged}


def _pair(name: str) -> tuple[str, str]:
    attack, _, statistic = name.partition(":")
    return attack, statistic or ANY


def _particular(limit: Mapping[str, Any]) -> tuple[bool, bool]:
    """Of attack and statistic, then of the attack, of the statistic, of all."""
    return limit["attack"] != ANY, limit["statistic"] != ANY
