"""What the site report is made from: plain frozen records that the flow fills in, and their plain JSON.

Nothing here is computed from patients; the record carries aggregates that earlier stages made. The JSON is what the
page shows, small cells suppressed alike, so that neither tells more than the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, final

from pipeline.core.codec import to_plain
from pipeline.core.types import (
    ContractResult,
    GateDecision,
    Grouping,
    IngestReport,
    Json,
    LeakageReport,
    PrivacyGuarantee,
    UtilityReport,
    Verdict,
)
from pipeline.core.types.drift import DriftReport
from pipeline.report.suppress import suppress_small_cells

SCHEMA = "decoct/site-report/1"


@final
@dataclass(frozen=True)
class StageRow:
    """One stage of the run: what it made (by digest), how long it took, in one line."""

    name: str
    digest: str
    seconds: float
    reused: bool  # found in the store, not computed again
    summary: str


@final
@dataclass(frozen=True)
class CondensedSummary:
    """One condensed set of the run, without its samples."""

    name: str
    method: str
    input: str  # name of the encoding it lives in
    n_samples: int
    storage_floats: int
    guarantee: PrivacyGuarantee | None
    starts_from_records: bool
    soft_labels: bool
    seconds: float
    loss_curve: tuple[float, ...]  # thinned by the caller; () when the method has none


@final
@dataclass(frozen=True)
class Trajectory:
    """Class means over time of one variable, real training stays against one condensed set; keys "0" and "1".

    `real_counts` (people behind each real mean) lets small classes be suppressed; leave it empty only when the classes
    are known to be large.
    """

    variable: str
    unit: str
    hours: tuple[float, ...]
    real_means: Mapping[str, tuple[float, ...]]
    condensed_means: Mapping[str, tuple[float, ...]]
    condensed_name: str
    real_counts: Mapping[str, int] = field(default_factory=dict)


@final
@dataclass(frozen=True)
class DrawnSample:
    """One sample of the judged set over time, a few variables of it; only of sets with a guarantee is one drawn."""

    variables: tuple[tuple[str, str, tuple[float, ...]], ...]  # name, unit, values
    hours: tuple[float, ...]


@final
@dataclass(frozen=True)
class LimitRow:
    """One deciding figure of the audit beside the policy's limit; `limit` None = accepted at any value."""

    artefact: str
    attack: str
    threat_model: str
    statistic: str
    high: float  # upper end of the 95 % interval, which is what the limit is compared with
    limit: float | None
    verdict: Verdict


@final
@dataclass(frozen=True)
class PolicyTerms:
    """What of the policy a reader needs beside the verdict."""

    name: str
    production: bool
    approvals: int
    limits: tuple[LimitRow, ...]


@final
@dataclass(frozen=True)
class RunRecord:
    """Everything a run has to say about itself. Restricted: it holds exact figures computed from patients."""

    name: str
    created: str  # ISO 8601 date, given by the caller: the page never looks at a clock
    code_version: str
    config_digest: str
    machine: Json
    seed: int
    site: str
    policy: str
    stages: tuple[StageRow, ...]
    ingest: IngestReport
    contracts: tuple[ContractResult, ...]
    encoders: Mapping[str, Json]  # name -> public specification
    condensed: tuple[CondensedSummary, ...]
    utility: UtilityReport
    grouping: Grouping | None
    leakage: tuple[LeakageReport, ...]
    decision: GateDecision | None
    bundle_path: str | None
    bundle_digest: str | None
    trajectories: tuple[Trajectory, ...]
    release_kind: Literal["condensed", "encoded", "moments"] = "condensed"
    release_artefact: str = ""  # the artefact that the gate judged
    drift: DriftReport | None = None
    changes: Json | None = None  # since the cohort of the last release, small cells suppressed already
    missingness: Literal["", "drop", "encode", "release"] = ""  # what became of the pattern of measurements
    terms: PolicyTerms | None = None
    sample: DrawnSample | None = None
    implausible_samples: int | None = None  # of the judged set, in clinical units; synthetic, so not suppressed
    awaits_approval: bool = False  # the bundle is a proposal


def record_json(record: RunRecord) -> dict[str, Any]:
    """The record as plain JSON data: lists, dicts, str, int, float, bool, None; non-finite numbers become None.

    Counts of stays below ten are replaced by the string "<10" (see `pipeline.report.suppress`).
    """
    data: dict[str, Any] = to_plain(record)
    return {"schema": SCHEMA, "access": "restricted", **suppress_small_cells(data)}
