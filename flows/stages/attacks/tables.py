"""`decoct audit-tables`: the audit of anybody's table, judged by a policy, told on a page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

from flows.progress import steps
from pipeline.audit.run import audit as attack
from pipeline.audit.tables.scene import Tables, TabularScene, read_table, tabular_scene
from pipeline.core.codec import to_plain
from pipeline.core.digest import canonical_json
from pipeline.core.errors import LeakageError, ReleaseRefused
from pipeline.core.types import GateDecision, LeakageReport
from pipeline.report.audit_page import audit_page
from pipeline.report.suppress import is_small
from pipeline.sharing.policy.gate import judge_audit
from pipeline.sharing.policy.load import load_policy

SCHEMA: Final = "decoct/table-audit/1"
PAGE: Final = "audit.html"
DATA: Final = "audit.json"
KIND: Final = "condensed"  # the policy's rules for sets that hold nobody's row


@final
@dataclass(frozen=True)
class TableAudit:
    """The audit of a table: its scene's facts, the report, the verdict of the policy's limits."""

    name: str
    scene: TabularScene
    report: LeakageReport
    decision: GateDecision

    def data(self) -> dict[str, Any]:
        """Plain JSON data without a clock and without a path: the same inputs and seed give the same bytes."""
        people = {role: "<10" if is_small(count) else count for role, count in self.scene.people.items()}
        return {
            "schema": SCHEMA,
            "access": "restricted",
            "name": self.name,
            "people": people,
            "columns": list(self.scene.columns),
            "notes": list(self.scene.notes),
            "decision": to_plain(self.decision),
            "report": to_plain(self.report),
        }


def audit_tables(
    real: Path,
    shared: Path,
    holdout: Path,
    *,
    name: str,
    policy: str,
    seed: int,
    subject_column: str | None = None,
    time_column: str | None = None,
) -> TableAudit:
    """Attack the shared table; nothing is written.

    Raises:
        DataError: a table cannot be read or used; ConfigError: the policy.
    """
    rules = load_policy(policy)
    tables = Tables(
        read_table(real, "real"),
        read_table(shared, "shared"),
        read_table(holdout, "holdout"),
        subject_column,
        time_column,
    )
    scene = tabular_scene(tables, name=name, shared_bytes=shared.read_bytes())
    with steps("attacking", "") as on_step:
        report = attack(scene.scenes, seed=seed, on_step=on_step)[0]
    return TableAudit(name, scene, report, judge_audit(rules, KIND, [report]))


def write(found: TableAudit, folder: Path) -> tuple[Path, Path]:
    """The page and the data in a folder that only its owner can enter; files of an earlier audit are replaced."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    page, data = folder / PAGE, folder / DATA
    plain = found.data()
    for path, content in ((data, canonical_json(plain)), (page, audit_page(plain).encode())):
        path.touch(mode=0o600)
        path.write_bytes(content)
    return page, data


def enforce(decision: GateDecision) -> None:
    """Stop with the exit code of the verdict.

    Raises:
        LeakageError: the policy's limits say FAIL; ReleaseRefused: INCONCLUSIVE.
    """
    if decision.verdict == "PASS":
        return
    told = "; ".join(reason for verdict, reason in decision.reasons if verdict == decision.verdict)
    sentence = f"{decision.verdict} under the limits of policy {decision.policy}: {told}"
    raise LeakageError(sentence) if decision.verdict == "FAIL" else ReleaseRefused(sentence)
