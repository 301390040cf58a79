"""What leaks and whether it may leave: results of attacks, reports, decisions, releases."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from pipeline.core.types.cohort import ArrayRecord, Json, Provenance

ThreatModel = Literal["T0", "T1", "T2", "T3", "T4", "T5", "T6", "T7", "bytes"]


@dataclass(frozen=True)
class AttackResult:
    """What one attack reached, with its two controls (docs/audit.md).

    `rate` is the attack's figure with a 95 % interval [low, high]; `control` the same attack on records that are not in
    the artefact (or on an artefact that leaks nothing); `positive_control` the same attack where the leak was planted.
    `ceiling` is the largest value this audit could have certified at its n. Larger = more leakage, for every statistic.

    What a decision rests on is a field, never a key of `detail`, which is only shown. `gates`: it decides; false for
    figures that may be shown but never decide. `held_back`: it would decide had there been more people, so that it
    stays in the family of tests. `controls_held`: no leak was found where there is none, and the planted one was.
    `powered`: there were enough data for the figure to mean anything. `p_value`: the attack's own, one-sided, of
    "nothing leaks"; None = its interval tells it.
    """

    attack: str
    threat_model: ThreatModel
    artefact: str  # name in the run: "rqe", "private", ...
    statistic: str  # "r2", "tpr_at_1pct_fpr", "auroc", "count", ...
    rate: float
    low: float
    high: float
    n: int
    control: float | None
    positive_control: float | None
    ceiling: float | None
    gates: bool
    summary: str  # one sentence for a governance officer
    controls_held: bool
    powered: bool
    held_back: bool
    p_value: float | None
    p_value_of_the_family: float | None = None  # adjusted over all figures of the artefact, by the audit alone
    detail: Json = field(default_factory=dict)


@dataclass(frozen=True)
class NotRun:
    """An attack that could not run; never a pass. `failed`: it ought to have run, and nothing may leave without it."""

    attack: str
    threat_model: ThreatModel
    artefact: str
    reason: str
    failed: bool = False


@dataclass(frozen=True, eq=False, repr=False)
class AuditPiece(ArrayRecord):
    """What an audit made and may need again, because it depends on less than the artefact: restricted as the source is.

    `facts` are plain JSON, `numbers` of any shape; either may be empty.
    """

    facts: Json
    numbers: np.ndarray = field(default_factory=lambda: np.zeros(0))


@dataclass(frozen=True)
class LeakageReport:
    """Everything the audit did and did not do, about one artefact."""

    artefact: str
    artefact_digest: str
    results: tuple[AttackResult, ...]
    not_run: tuple[NotRun, ...]
    controls_held: bool  # every positive control found, every negative control quiet, and no attack failed
    provenance: Provenance


Verdict = Literal["PASS", "FAIL", "INCONCLUSIVE"]


@dataclass(frozen=True)
class GateDecision:
    """The gate's three-valued answer with one reason per rule that was looked at."""

    verdict: Verdict
    policy: str
    policy_digest: str
    reasons: tuple[tuple[Verdict, str], ...]


@dataclass(frozen=True)
class ReleaseRecord:
    """A bundle that was written: its folder's name inside the workspace's releases, and the digest of its files."""

    name: str
    digest: str
    version: int
