"""What has left a workspace and what it has cost, for the watch page: releases with their state, budget by cohort."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from flows.environment import code_version
from flows.workspace.releases import PROPOSALS, RELEASES
from pipeline.core.digest import canonical_json, digest_json
from pipeline.core.errors import DecoctError
from pipeline.core.files.whole import put_whole
from pipeline.report.suppress import SUPPRESSED, is_small

SHOWN: Final = 30  # cohorts
COMPOSED: Final = Path("watch") / "composed.json"
"""In a workspace: the epsilons that its page shows, each by a digest of the queries that it is of."""

Data = dict[str, Any]


def releases(workspace: Path, today: date) -> list[Data]:
    """Every release and proposal that the folders or the log know: version, policy, dates, and what became of it.

    Raises:
        EnvironmentProblem: the log is damaged.
    """
    from pipeline.sharing.trust.log import read_log

    revoked = _revoked(workspace)
    found: dict[tuple[str, str, int], Data] = {}
    for entry in read_log(workspace).entries:
        if entry["what"] in ("propose", "publish"):
            key = (str(entry["site"]), str(entry["name"]), int(entry["version"]))
            state = "published" if entry["what"] == "publish" else "proposed"
            row = found.get(key, {"policy": "", "issued": "", "expires": ""})
            found[key] = {**row, "state": state, "logged": entry["when"], "here": False}
    for folder, state in ((PROPOSALS, "proposed"), (RELEASES, "published")):
        for path in sorted((workspace / folder).glob("[!.]*/manifest.json")):
            told = _manifest(path)
            if told is not None:
                key = (told["site"], told["name"], told["version"])
                logged = found.get(key, {}).get("logged", "")
                found[key] = {**told, "state": state, "logged": logged, "here": True}
    rows = []
    for (site, name, version), row in found.items():
        state = row["state"] if row["here"] else f"{row['state']}, moved away since"
        if row["expires"] and date.fromisoformat(row["expires"]) < today:
            state = "expired"
        if revoked is None:
            state += ", revocations cannot be read"
        elif f"{site}/{name}/{version}" in revoked:
            state = "revoked"
        rows.append({**row, "site": site, "name": name, "version": version, "state": state})
    return sorted(rows, key=lambda row: (row["issued"] or row["logged"], row["name"], row["version"]), reverse=True)


def _manifest(path: Path) -> Data | None:
    try:
        raw = json.loads(path.read_bytes())
        return {
            "site": str(raw["site"]),
            "name": str(raw["name"]),
            "version": int(raw["version"]),
            "policy": str(raw["policy"]["name"]),
            "issued": date.fromisoformat(raw["issued"]).isoformat(),
            "expires": date.fromisoformat(raw["expires"]).isoformat(),
        }
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _revoked(workspace: Path) -> frozenset[str] | None:
    """Releases on the workspace's own copy of the revocation list, if it has one; None = it cannot be trusted."""
    from pipeline.sharing.trust.revocation import load_revocations
    from pipeline.sharing.trust.root import load_trust_root

    listed = workspace / "trust" / "revocations.json"
    if not listed.exists():
        return frozenset()
    try:
        return load_revocations(listed, load_trust_root(workspace / "trust" / "root.json")).releases
    except DecoctError:
        return None


def budget_spent(workspace: Path, *, keep: bool = False) -> Data | None:
    """What each cohort's people have given at most, against the budget; None = nothing was ever reserved.

    To compose queries loads libraries for two seconds, so a page (`keep`) reads what an earlier night composed and
    keeps it. That is for the eye alone: whoever writes in the workspace could write it, so what is charged, or raises
    an alarm, is composed anew.

    Raises:
        BudgetError, EnvironmentProblem: the ledger cannot be trusted or read.
    """
    from pipeline.sharing.policy.ledger import composed_epsilon, last_budget, spent_by_cohort

    budget = last_budget(workspace)
    if budget is None:
        return None
    path = workspace / COMPOSED
    known = _composed_before(path) if keep else {}
    made: dict[str, float] = {}

    def price(events: Sequence[Mapping[str, Any]], delta: float) -> float:
        asked = sorted(canonical_json(one).decode() for one in events)
        key = digest_json([code_version(), metadata.version("dp-accounting"), delta, asked])
        made[key] = known[key] if key in known else composed_epsilon(events, delta)
        return made[key]

    rows = [
        {
            "cohort": row.cohort[:12],
            "unit": row.unit,
            "people": SUPPRESSED if is_small(row.people) else row.people,
            "queries": row.queries,
            "last": row.last,
            "epsilon": round(row.epsilon, 4),
            "left": round(row.left, 4),
        }
        for row in spent_by_cohort(workspace, budget, price)
    ]
    if keep and made != known:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        put_whole(path, json.dumps(made).encode())
        path.chmod(0o600)
    told = {"epsilon": budget.epsilon, "delta": budget.delta, "period_days": budget.period_days}
    return {"budget": told, "cohorts": rows[-SHOWN:]}


def epsilon_left(workspace: Path) -> tuple[float, float] | None:
    """(left for those who gave most, the whole budget of a period); None = nothing was ever reserved.

    Raises:
        BudgetError, EnvironmentProblem: as `budget_spent`.
    """
    from pipeline.sharing.policy.ledger import last_budget, spent_by_cohort

    budget = last_budget(workspace)
    if budget is None:
        return None
    return min((row.left for row in spent_by_cohort(workspace, budget)), default=budget.epsilon), budget.epsilon


def _composed_before(path: Path) -> dict[str, float]:
    try:
        return {str(key): float(epsilon) for key, epsilon in json.loads(path.read_bytes()).items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}  # nothing was, or nothing that can be read
