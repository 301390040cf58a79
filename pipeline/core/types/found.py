"""What else was found of a cohort or set: rows read, contracts, utility, groups of tasks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from pipeline.core.errors import DataError


@dataclass(frozen=True)
class UnitUse:
    """What was made of the rows of one code with one unit text; `median` of the raw values, None under ten rows."""

    code: str
    unit: str
    rows: int
    median: float | None
    verdict: str


@dataclass(frozen=True)
class TableUse:
    """What became of one table of a source, or of one of its files, before repeats and the grid are looked at."""

    table: str
    file: str
    rows: int
    used: int
    dropped: Mapping[str, int]  # reason -> rows


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
    units: tuple[UnitUse, ...] = ()
    tables: tuple[TableUse, ...] = ()
    few_people: tuple[str, ...] = ()  # figures of one to nine people's stays: "coverage:HR", "series", ...

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


OF_TEACHER: Final = "'s teacher"
"""After a set's name: the row of the teacher that came with it, for which nothing is trained."""
FULL_DATA: Final = "full_data"
RANDOM_REAL: Final = "random_real_stays"
"""The rows of the ceiling, all real training stays, and of the baseline, as many as the set has samples."""


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
