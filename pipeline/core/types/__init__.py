"""The data that travels the road: frozen dataclasses over numpy, shapes in the annotations, arrays never in a repr.

Axes: stay (one ICU stay), subject (a person, may have several stays), step (one grid step of `step_hours`), variable
(a clinical series), channel (a column of an encoded series), sample (one synthetic series), task (one label).
Constructors check shapes and the rules that later stages rely on, and raise `DataError`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int8, Int32, Shaped

from pipeline.core.errors import DataError
from pipeline.core.files.mapped import all_finite, row_chunks, rows_of

Aggregation = Literal["mean", "last", "sum", "max", "min"]
Json = Mapping[str, Any]


class Split(IntEnum):
    """MEDS's names for the three parts; no subject is in two of them."""

    TRAIN = 0
    TUNING = 1
    HELD_OUT = 2


class ArrayRecord:
    """A repr that shows shapes and short facts, never an array's content (a log line must not hold a patient)."""

    def __repr__(self) -> str:
        shown = []
        for item in dataclasses.fields(self):  # type: ignore[arg-type]
            value = getattr(self, item.name)
            if isinstance(value, np.ndarray):
                shown.append(f"{item.name}={value.dtype}{list(value.shape)}")
            elif isinstance(value, tuple | Mapping):
                shown.append(f"{item.name}=<{len(value)}>")
            else:
                shown.append(f"{item.name}={value!r}")
        return f"{type(self).__name__}({', '.join(shown)})"


@dataclass(frozen=True)
class Variable:
    """A clinical series with the *public* constants that describe it.

    `plausible_low/high`: outside = measurement error, dropped and counted at ingest. `scale_low/high`: the clinical
    range mapped to [0, 1]. `normal`: the constant that stands in where nothing was ever observed. None of them may be
    computed from patients: what touches patients is inside the account or is public.
    """

    name: str
    unit: str
    plausible_low: float
    plausible_high: float
    scale_low: float
    scale_high: float
    normal: float
    aggregation: Aggregation = "mean"


@dataclass(frozen=True)
class StaticVariable:
    """A descriptor of the whole stay; `categories` (code -> label) makes it one-hot when prepared."""

    name: str
    unit: str
    plausible_low: float
    plausible_high: float
    scale_low: float
    scale_high: float
    normal: float
    categories: tuple[tuple[int, str], ...] = ()


@dataclass(frozen=True)
class Task:
    """A label in [0, 1], NaN = missing. Binary: 1 = the event. Regression: a number in *public* limits, scaled.

    A regression label is (value - low) / (high - low), clipped to [0, 1]; neither limit may be computed from patients.
    Models learn it as a fractional response (Papke and Wooldridge, J Appl Econometrics 11:619, 1996): cross-entropy
    with a target in [0, 1] is least at the conditional mean, so that one loss serves both kinds.
    """

    name: str
    description: str = ""
    kind: Literal["binary", "regression"] = "binary"
    low: float = 0.0  # what the labels 0 and 1 stand for, in `unit`
    high: float = 1.0
    unit: str = ""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise DataError(f"task {self.name}: low must be smaller than high")


@dataclass(frozen=True)
class Provenance:
    """How an artefact came to be: enough to make it again, nothing about a person and no secret."""

    stage: str
    parents: tuple[str, ...] = ()
    config: Json = field(default_factory=dict)
    code_version: str = ""
    seed: int | None = None


@dataclass(frozen=True, eq=False, repr=False)
class Cohort(ArrayRecord):
    """Stays in raw clinical units on a regular grid; nothing imputed or scaled. Never leaves the site."""

    values: Float32[np.ndarray, "stay step variable"]  # NaN where not observed
    observed: Bool[np.ndarray, "stay step variable"]
    static: Float32[np.ndarray, "stay static_variable"]  # NaN = missing
    labels: Float32[np.ndarray, "stay task"]  # 0 or 1 (regression: in [0, 1]), NaN = missing
    stay_ids: Shaped[np.ndarray, " stay"]  # str
    subject_ids: Shaped[np.ndarray, " stay"]  # str
    split: Int8[np.ndarray, " stay"]  # Split
    variables: tuple[Variable, ...]
    static_variables: tuple[StaticVariable, ...]
    tasks: tuple[Task, ...]
    step_hours: float
    provenance: Provenance
    subjects_known: bool = True  # False: the source has no person ids, so every guarantee is per stay
    sites: Shaped[np.ndarray, " stay"] | None = None  # str, "" = not said; None where the source names no sites

    def __post_init__(self) -> None:
        stays, steps = self.values.shape[:2]
        _shape("values", self.values, (stays, steps, len(self.variables)))
        _shape("observed", self.observed, self.values.shape)
        _shape("static", self.static, (stays, len(self.static_variables)))
        _shape("labels", self.labels, (stays, len(self.tasks)))
        for name in ("stay_ids", "subject_ids", "split"):
            _shape(name, getattr(self, name), (stays,))
        if self.sites is not None:
            _shape("sites", self.sites, (stays,))
        if len(np.unique(self.stay_ids)) != stays:
            raise DataError("the cohort holds a stay id more than once")
        chunks = row_chunks(self.values)
        if any(bool((np.isfinite(self.values[part]) != self.observed[part]).any()) for part in chunks):
            raise DataError("cohort values must be finite exactly where observed")
        shared = subjects_in_several_splits(self.subject_ids, self.split)
        if shared:
            raise DataError(f"{shared} subjects appear in more than one split; splits are by subject")

    @property
    def subject_index(self) -> np.ndarray:
        """Dense int32 codes of the subjects, meaningless outside this cohort: `(stay,)`."""
        return np.unique(self.subject_ids, return_inverse=True)[1].astype(np.int32)


@dataclass(frozen=True, eq=False, repr=False)
class EncodedCohort(ArrayRecord):
    """Prepared (imputed, scaled) and encoded series, a row per stay; no ids.

    `subject_index` only groups the stays of one person (contribution bounding, patient bootstrap); it is never put in a
    bundle. `transforms` lists what was done since the raw cohort, in order, each `{"kind": ..., "public": bool, ...}`;
    `public` false means that the transform's constants were computed from patients.
    """

    features: Float32[np.ndarray, "stay step channel"]
    labels: Float32[np.ndarray, "stay task"]
    subject_index: Int32[np.ndarray, " stay"]
    split: Int8[np.ndarray, " stay"]
    channels: tuple[str, ...]
    tasks: tuple[Task, ...]
    step_hours: float
    transforms: tuple[Json, ...]
    provenance: Provenance

    def __post_init__(self) -> None:
        stays, steps = self.features.shape[:2]
        _shape("features", self.features, (stays, steps, len(self.channels)))
        _shape("labels", self.labels, (stays, len(self.tasks)))
        _shape("subject_index", self.subject_index, (stays,))
        _shape("split", self.split, (stays,))
        if not all_finite(self.features):
            raise DataError("encoded features must be finite")

    @property
    def is_public_transform(self) -> bool:
        """True when no constant of any transform was computed from patients, so that a guarantee can be given."""
        return all(bool(step["public"]) for step in self.transforms)

    def part(self, split: Split) -> EncodedCohort:
        """The stays of one split."""
        return self.take(np.flatnonzero(self.split == int(split)))

    def take(self, rows: np.ndarray) -> EncodedCohort:
        """The stays at `rows`; subjects keep their codes. Features that lie in a file stay in one if they are large.

        Raises:
            OSError: as `pipeline.core.files.mapped.rows_of`.
        """
        return dataclasses.replace(
            self,
            features=rows_of(self.features, rows),
            labels=self.labels[rows],
            subject_index=self.subject_index[rows],
            split=self.split[rows],
        )


@dataclass(frozen=True)
class PrivacyGuarantee:
    """An (epsilon, delta) statement with all needed to check it; the only privacy claim an artefact may carry."""

    epsilon: float
    delta: float
    unit: Literal["subject", "stay"]
    adjacency: Literal["add-or-remove-one"]
    accountant: str  # library, version and method
    events: tuple[Json, ...]  # dp-accounting events, composed
    assumed_public: tuple[str, ...]  # what the account takes as known beforehand

    def __post_init__(self) -> None:
        if not (self.epsilon >= 0 and 0 <= self.delta < 1 and math.isfinite(self.epsilon)):
            raise DataError("a privacy guarantee needs a finite epsilon >= 0 and a delta in [0, 1)")


@dataclass(frozen=True, eq=False, repr=False)
class Moments(ArrayRecord):
    """Noisy sufficient statistics of a public feature map phi: they add up over institutions with disjoint patients.

    `feature_map` is the public description of phi (kind, size, clip norm, channels, steps); two Moments may be added
    only when `feature_map_digest` agrees. Feature 0 is the constant 1, so counts and sums are entries of `gram`, and
    `signed_counts` is column 0 of `signed_sums`.
    """

    gram: Float64[np.ndarray, "feature feature"]  # sum of phi phi^T, noisy, symmetric
    signed_sums: Float64[np.ndarray, "task feature"]  # sum of (2y - 1) phi, missing labels count 0
    signed_counts: Float64[np.ndarray, " task"]  # sum of (2y - 1), noisy
    feature_map: Json
    feature_map_digest: str
    channels: tuple[str, ...]
    tasks: tuple[Task, ...]
    n_steps: int
    step_hours: float
    transforms: tuple[Json, ...]
    guarantee: PrivacyGuarantee | None
    provenance: Provenance

    def __post_init__(self) -> None:
        features = self.gram.shape[0]
        _shape("gram", self.gram, (features, features))
        _shape("signed_sums", self.signed_sums, (len(self.tasks), features))
        _shape("signed_counts", self.signed_counts, (len(self.tasks),))


@dataclass(frozen=True, eq=False, repr=False)
class CondensedSet(ArrayRecord):
    """A few synthetic samples; by construction no field can hold an id or a row index."""

    features: Float32[np.ndarray, "sample step channel"]
    labels: Float32[np.ndarray, "sample task"]  # in [0, 1]; soft when not all 0 or 1; NaN = missing
    channels: tuple[str, ...]
    tasks: tuple[Task, ...]
    step_hours: float
    transforms: tuple[Json, ...]
    method: str
    starts_from_records: bool  # a sample was initialised from (or is) a real stay or an average of few
    guarantee: PrivacyGuarantee | None
    provenance: Provenance

    def __post_init__(self) -> None:
        samples, steps = self.features.shape[:2]
        _shape("features", self.features, (samples, steps, len(self.channels)))
        _shape("labels", self.labels, (samples, len(self.tasks)))
        if not bool(np.isfinite(self.features).all()):
            raise DataError("condensed features must be finite")
        known = self.labels[np.isfinite(self.labels)]
        if known.size and not (known.min() >= 0 and known.max() <= 1):
            raise DataError("condensed labels must lie in [0, 1]")

    @property
    def has_soft_labels(self) -> bool:
        known = self.labels[np.isfinite(self.labels)]
        return not bool(np.isin(known, (0.0, 1.0)).all())


@dataclass(frozen=True, eq=False, repr=False)
class LossCurve(ArrayRecord):
    """The losses a condenser reported, thinned; part of the site's report, never of a bundle."""

    losses: Float32[np.ndarray, " point"]
    artefact: str


ThreatModel = Literal["T0", "T1", "T2", "T3", "T4", "T5", "T6", "T7", "bytes"]


@dataclass(frozen=True)
class AttackResult:
    """What one attack reached, with its two controls (docs/audit.md).

    `rate` is the attack's figure with a 95 % interval [low, high]; `control` the same attack on records that are not in
    the artefact (or on an artefact that leaks nothing); `positive_control` the same attack where the leak was planted.
    `ceiling` is the largest value this audit could have certified at its n. `gates` is false for figures that may be
    shown but never decide. Larger = more leakage, for every statistic.
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
    detail: Json = field(default_factory=dict)


@dataclass(frozen=True)
class NotRun:
    """An attack that could not run; never a pass."""

    attack: str
    threat_model: ThreatModel
    artefact: str
    reason: str


@dataclass(frozen=True)
class LeakageReport:
    """Everything the audit did and did not do, about one artefact."""

    artefact: str
    artefact_digest: str
    results: tuple[AttackResult, ...]
    not_run: tuple[NotRun, ...]
    controls_held: bool  # every positive control found, every negative control quiet
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
class IngestReport:
    """Where every row went; rows_read = rows_used + sum(rows_dropped), checked on construction."""

    source: str
    rows_read: int
    rows_used: int
    rows_dropped: Mapping[str, int]  # reason -> rows
    dropped_by_variable: Mapping[str, Mapping[str, int]]  # variable -> reason -> rows
    stays: int
    stays_without_series: int
    coverage: Mapping[str, float]  # variable -> share of stays with at least one observation
    prevalence: Mapping[str, float]  # task -> share of ones among known labels
    labels_missing: Mapping[str, int]  # task -> stays without the label
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.rows_read != self.rows_used + sum(self.rows_dropped.values()):
            raise DataError(f"{self.source}: {self.rows_read} rows read are not all accounted for")


@dataclass(frozen=True)
class ExpectationOutcome:
    """One rule of a data contract: what was looked at and how many values broke it (never which)."""

    column: str
    rule: str
    critical: bool
    success: bool
    unexpected_count: int
    n: int


@dataclass(frozen=True)
class ContractResult:
    """A Great Expectations suite's outcome on one artefact."""

    suite: str
    artefact: str
    success: bool  # no critical rule broken
    outcomes: tuple[ExpectationOutcome, ...]


@dataclass(frozen=True)
class UtilityScore:
    """One model trained on one set, tested on the real held-out stays: mean over seeds, 95 % interval."""

    training_set: str  # name of a condensed set, "full_data" or "random_real_stays"
    input: str  # name of the encoding it lives in
    model: str
    task: str
    metric: Literal["auroc", "auprc", "brier", "calibration_error", "r2", "mae"]  # mae in the task's unit
    mean: float
    low: float
    high: float
    seed_sd: float
    n_seeds: int
    n_test: int
    n_samples: int


@dataclass(frozen=True)
class UtilityReport:
    """Train on what is shared, test on real; ceiling and equal-size random baseline beside it."""

    scores: tuple[UtilityScore, ...]
    epochs: int
    interval: str  # how the intervals were made, in words
    training: str = ""  # how long the networks trained, in words: limits on steps can overrule `epochs`

    def score(self, training_set: str, model: str, metric: str, task: str) -> UtilityScore | None:
        """The one score asked for, or None."""
        for row in self.scores:
            if (row.training_set, row.model, row.metric, row.task) == (training_set, model, metric, task):
                return row
        return None


@dataclass(frozen=True)
class GroupsCompared:
    """One way to choose groups and its gain, with an 80 % interval, on the stays that had no say."""

    name: str
    n_groups: int
    gain: float
    low: float
    high: float


@dataclass(frozen=True)
class GroupValidation:
    """What training the candidate groups has shown, on stays that had no part in training them.

    Gains are shares of a task's null log-loss over learning it alone, with an 80 % interval, from tuning stays that had
    no say in the choice. Where no grouping is identifiable, `Grouping.groups` holds every task alone.
    """

    chosen: tuple[tuple[str, ...], ...]  # by validation, whatever the verdict
    identifiable: bool
    verdict: str  # the reliability in one sentence
    reliability: float
    reliability_low: float  # what it is above chance; above 0 = identifiable
    gain: float
    gain_low: float
    gain_high: float
    task_gains: tuple[float, ...]
    share_gaining: tuple[float, ...]  # per task, of bootstrap draws in which its group helps it
    harmed: tuple[str, ...]
    together: tuple[tuple[float, ...], ...]  # (task, task), share of replicates that serve both by one group
    n_trained: int
    n_seeds: int
    share_at_limit: float  # of trained networks that were still improving when the epochs ran out
    compared: tuple[GroupsCompared, ...] = ()  # other choices from the same trained groups; last, the ceiling


@dataclass(frozen=True)
class Grouping:
    """Which tasks are worth learning together, with the label-only control beside it. Smaller affinity = more alike."""

    tasks: tuple[str, ...]
    method: str
    affinity: tuple[tuple[float, ...], ...]  # (task, task), symmetric, zero diagonal
    control_method: str
    control: tuple[tuple[float, ...], ...]
    rank_correlation: float  # Spearman, off-diagonal, affinity against control
    groups: tuple[tuple[str, ...], ...]
    control_groups: tuple[tuple[str, ...], ...]
    objective: float
    n_stays: int
    notes: tuple[str, ...] = ()
    validation: GroupValidation | None = None  # None: the groups are what the affinity proposes
    chosen: Literal["real_stays", "private_moments", "fixed"] = "real_stays"  # from what; the first is unaccounted


@dataclass(frozen=True)
class ReleaseRecord:
    """A bundle that was written: its folder's name inside the workspace's releases, and the digest of its files."""

    name: str
    digest: str
    version: int


def subjects_in_several_splits(subject_ids: np.ndarray, split: np.ndarray) -> int:
    """How many subjects have stays in more than one split."""
    order = np.argsort(subject_ids, kind="stable")
    ids, parts = subject_ids[order], split[order]
    torn = (ids[1:] == ids[:-1]) & (parts[1:] != parts[:-1])
    return len(np.unique(ids[1:][torn]))


def _shape(name: str, array: np.ndarray, expected: tuple[int, ...]) -> None:
    if array.shape != expected:
        raise DataError(f"{name} has shape {array.shape}, expected {expected}")
