"""The audit of anybody's tables, in memory or in files (`decoct audit-tables`), by a policy.

found = audit(real, synthetic, holdout)
print(found)
found.decision.verdict
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any, Final, final

from flows import registry
from flows.progress import steps
from pipeline.audit.run import audit as attack
from pipeline.audit.tables.frames import frame_of
from pipeline.audit.tables.scene import Tables, TabularScene, read_table, tabular_scene
from pipeline.core.codec import to_plain
from pipeline.core.digest import canonical_json
from pipeline.core.errors import LeakageError, ReleaseRefused
from pipeline.core.types import GateDecision, LeakageReport
from pipeline.report.audit_page import audit_page
from pipeline.report.suppress import is_small
from pipeline.sharing.policy.gate import judge_audit
from pipeline.sharing.policy.load import Policy, load_policy

SCHEMA: Final = "decoct/table-audit/1"
PAGE: Final = "audit.html"
DATA: Final = "audit.json"
KIND: Final = "condensed"  # the policy's rules for sets that hold nobody's row


@final
@dataclass(frozen=True, repr=False)
class TableAudit:
    """The audit of a table: its scene's facts, the report, the verdict of the policy's limits.

    Printed, it tells each figure on a line: those that begin with "decides" are held against the policy's limits.
    """

    name: str
    scene: TabularScene
    report: LeakageReport
    decision: GateDecision

    def __repr__(self) -> str:
        people, n_columns = self.scene.people, len(self.scene.columns)
        lines = [
            f"audited {self.name}: {people['shared']} rows, {n_columns} columns, against "
            f"{people['real']} real people and {people['holdout']} others"
        ]
        lines += [f"note    {note}" for note in self.scene.notes]
        for result in self.report.results:
            lines.append(f"{'decides' if result.gates else 'shown':<8}{result.threat_model}: {result.summary}")
        lines += [f"NOT RUN {item.attack} ({item.threat_model}): {item.reason}" for item in self.report.not_run]
        return "\n".join([*lines, f"limits  {self.decision.verdict} under policy {self.decision.policy}"])

    def _repr_html_(self) -> str:
        """The page of this audit, in a frame that may run nothing."""
        page = escape(audit_page(self.data()))
        return f'<iframe sandbox="" title="audit" style="width:100%;height:40rem" srcdoc="{page}"></iframe>'

    def to_json(self) -> str:
        """`data()` as canonical JSON: as restricted as the real table is."""
        return canonical_json(self.data()).decode()

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


def audit(
    real: Any,
    synthetic: Any,
    holdout: Any,
    *,
    name: str = "shared",
    policy: str | Path | Policy = "research",
    seed: int = 0,
    subject_column: str | None = None,
    time_column: str | None = None,
) -> TableAudit:
    """Attack a synthetic table with the real one that it was made from and records of other people.

    Each table is a pandas or polars frame, an arrow table or an array `(row, column)`, a row per person; the synthetic
    one decides which columns are audited.

    Args:
        holdout: people of the same kind whom the generator never saw; without them nothing can be told from luck.
        name: what the synthetic table is called in what is told.
        policy: whose limits judge: a name, a file, or a policy.
        subject_column: whose row it is, if several rows are one person's; never audited as a value.
        time_column: of long tables, which are then summarised per person.

    Raises:
        DataError: a table cannot be used; ConfigError: the policy.
    """
    tables = Tables(
        frame_of(real, "real"),
        frame_of(synthetic, "shared"),
        frame_of(holdout, "holdout"),
        subject_column,
        time_column,
    )
    return _audited(tables, None, name, policy, seed)


def audit_tables(
    real: Path | str,
    synthetic: Path | str,
    holdout: Path | str,
    *,
    name: str = "shared",
    policy: str | Path | Policy = "research",
    seed: int = 0,
    subject_column: str | None = None,
    time_column: str | None = None,
) -> TableAudit:
    """`audit` of parquet or CSV files; with `subject_column` the file's bytes are searched for identifiers, too.

    Nothing is written.

    Raises:
        DataError: a table cannot be read or used; ConfigError: the policy.
    """
    shared = Path(synthetic)
    tables = Tables(
        read_table(Path(real), "real"),
        read_table(shared, "shared"),
        read_table(Path(holdout), "holdout"),
        subject_column,
        time_column,
    )
    return _audited(tables, shared.read_bytes(), name, policy, seed)


def _audited(
    tables: Tables, shared_bytes: bytes | None, name: str, policy: str | Path | Policy, seed: int
) -> TableAudit:
    rules = policy if isinstance(policy, Policy) else load_policy(policy)
    scene = tabular_scene(tables, name=name, shared_bytes=shared_bytes)
    with steps("attacking", "") as on_step:
        report = attack((*scene.scenes, scene.raw), seed=seed, attacks=registry.attacks(), on_step=on_step)[0]
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
