"""Drift: how far a cohort is from the last accepted one, and how far is too far.

Everything compared is a table of counts of stays on public bins; a stay counts once, so that tables of different
cohorts are samples of stays. Two effect sizes, both independent of units and of sample size:

- ordered bins (values, lengths, numbers): the Kolmogorov-Smirnov distance, the largest difference between the two
  cumulative shares, 0 to 1;
- categories and shares (measured or not, ill or not): Cohen's h = |2 asin sqrt p - 2 asin sqrt q|, 0 to pi, the largest
  over the categories (Cohen, Statistical Power Analysis, 2nd ed., 1988, chapter 6).

A row alarms when its effect is above the limit of its kind *and* above what resampling alone brings: by the two-sample
Dvoretzky-Kiefer-Wolfowitz inequality P(KS > d) <= e exp(-2 d^2 n m / (n + m)) (Wei and Dudley, Stat Probab Lett 82:636,
2012), and by the normal law of h with variance 1/n + 1/m. The false-alarm rate is shared out over all rows, so a table
of 300 rows alarms by chance as seldom as one of 30. Cohorts that overlap differ less than the laws say.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, final

import numpy as np

from pipeline.core.digest import digest_json
from pipeline.core.errors import DriftError
from pipeline.core.files.mapped import row_chunks
from pipeline.core.types import Cohort, ContractResult, Provenance, StaticVariable, Variable
from pipeline.core.types.drift import LEVELS, CohortProfile, Counts, DriftReport, DriftRow, Level
from pipeline.validation.expectations import Table, between, run_suite

FINE_BINS: Final = 64  # on the clinical range, and half as many on the plausible one
LABEL_BINS: Final = 20  # of a number
MIN_STAYS: Final = 20  # fewer on either side: not compared
MAX_SAID: Final = 4
CODE_DIGITS: Final = 8


@final
@dataclass(frozen=True)
class Limits:
    """Above which effect a row is remarked on, warned of, or stops the night."""

    note: float
    warn: float
    stop: float


def cohort_profile(
    cohort: Cohort, *, content: str, provenance: Provenance, rows: np.ndarray | None = None
) -> CohortProfile:
    """Count the stays at `rows` (None = all) by bin; memory is bounded by a chunk of the cohort.

    A variable is counted by its mean over a stay's observed cells ("value"), by whether it has any ("measured") and by
    how many ("cells"); a stay by its last observed step ("length").
    """
    rows = np.arange(len(cohort.values)) if rows is None else rows
    means, cells, last = _by_stay(cohort, rows)
    steps = cohort.values.shape[1]
    tables = [Counts("length", "", True, _counts(np.bincount(last, minlength=steps + 1)))]
    for column, variable in enumerate(cohort.variables):
        seen = cells[:, column]
        tables.append(Counts("value", variable.name, True, _histogram(means[:, column], _edges(variable))))
        tables.append(_yes_no("measured", variable.name, seen > 0))
        tables.append(Counts("cells", variable.name, True, _counts(np.bincount(seen, minlength=steps + 1))))
    for column, static in enumerate(cohort.static_variables):
        tables += _static_tables(cohort.static[rows, column], static)
    for column, task in enumerate(cohort.tasks):
        label = cohort.labels[rows, column]
        known = label[np.isfinite(label)]
        tables.append(_yes_no("label known", task.name, np.isfinite(label)))
        if task.kind == "binary":
            tables.append(_yes_no("label", task.name, known >= 0.5))
        else:
            tables.append(Counts("label", task.name, True, _histogram(known, np.linspace(0, 1, LABEL_BINS + 1))))
    subjects = len(np.unique(cohort.subject_ids[rows]))
    return CohortProfile(content, len(rows), subjects, tuple(tables), provenance)


def compare(
    before: CohortProfile,
    now: CohortProfile,
    *,
    among: Literal["all", "new"],
    limits: Callable[[Counts], Limits],
    false_alarm: float,
) -> tuple[DriftRow, ...]:
    """A row for every table that both profiles have, with enough stays on both sides; in the profile's order.

    Args:
        limits: of a table; false_alarm: chance of any alarm at all among these rows where nothing has changed.
    """
    earlier = {(table.what, table.item): table for table in before.tables}
    pairs = [(earlier[key], table) for table in now.tables if (key := (table.what, table.item)) in earlier]
    pairs = [(old, new) for old, new in pairs if len(old.counts) == len(new.counts)]
    pairs = [(old, new) for old, new in pairs if min(sum(old.counts), sum(new.counts)) >= MIN_STAYS]
    repeat_before, repeat_now = _repeats(before), _repeats(now)
    found = []
    for old, new in pairs:
        n, m = sum(old.counts), sum(new.counts)
        effect = (_ks if new.ordered else _cohens_h)(old.counts, new.counts)
        chance = _chance(new, n / repeat_before, m / repeat_now, false_alarm / len(pairs))
        found.append(DriftRow(among, new.what, new.item, effect, chance, n, m, _level(effect, chance, limits(new))))
    return tuple(found)


def changed_tables(before: CohortProfile, now: CohortProfile) -> tuple[str, ...]:
    """Names of variables, statics and tasks that only one of the profiles has, or that are binned otherwise."""
    keys = [{(table.what, table.item, len(table.counts)) for table in profile.tables} for profile in (before, now)]
    return tuple(sorted({item or what for what, item, _ in keys[0] ^ keys[1]}))


def judged(
    rows: Sequence[DriftRow],
    *,
    against: str,
    subjects: tuple[int, int, int, int],
    notes: Sequence[str],
    provenance: Provenance,
) -> DriftReport:
    """The report of all rows, the most remarkable first; `subjects`: before, now, new, gone."""
    order = sorted(rows, key=lambda row: (-LEVELS.index(row.level), -row.effect, row.among, row.what, row.item))
    stops = sorted({f"{row.what} {row.item}" for row in order if row.level == "stop"})
    worst: Level = order[0].level if order else "none"
    code = digest_json(stops)[:CODE_DIGITS] if stops else ""
    return DriftReport(against, *subjects, tuple(order), worst, code, tuple(notes), provenance)


def as_contract(report: DriftReport) -> ContractResult:
    """The rows as a Great Expectations suite over a profile frame, a row per comparison: what breaks a rule is named.

    Only the rule on level "stop" is critical.
    """
    if not report.rows:
        return ContractResult("drift", "cohort", True, ())
    level = np.array([LEVELS.index(row.level) for row in report.rows], dtype=np.float64)
    names = tuple(_named(row) for row in report.rows)
    rules = (
        between("drift", None, LEVELS.index("stop") - 0.5, "stays below the limit that stops a night"),
        between("drift", None, LEVELS.index("warn") - 0.5, "stays below the limit that warns", critical=False),
        between("drift", None, LEVELS.index("note") - 0.5, "stays below the limit that is noted", critical=False),
    )
    return run_suite("drift", "cohort", [Table("comparison", {"drift": level}, rules, names)])


def require(report: DriftReport, contract: ContractResult, *, accepted: str) -> None:
    """Pass a report in which nothing stops, or whose stops somebody has accepted by their code.

    Raises:
        DriftError: names what drifted, how far, and the code that accepts it.
    """
    if contract.success or report.code == accepted:
        return
    stops = [row for row in report.rows if row.level == "stop"]
    said = "; ".join(f"{_named(row)} (distance {row.effect:.2f})" for row in stops[:MAX_SAID])
    more = f"; and {len(stops) - MAX_SAID} more" if len(stops) > MAX_SAID else ""
    raise DriftError(
        f"the cohort has drifted from that of {report.against}: {said}{more}; if this is how the hospital is now, "
        f'set drift.accepted = "{report.code}"'
    )


def _named(row: DriftRow) -> str:
    return f"{row.what} {row.item}".strip() + (" of new subjects" if row.among == "new" else "")


def _level(effect: float, chance: float, limits: Limits) -> Level:
    for level in ("stop", "warn", "note"):
        if effect > max(getattr(limits, level), chance):
            return level
    return "none"


def _ks(old: Sequence[int], new: Sequence[int]) -> float:
    shares = [np.cumsum(counts) / sum(counts) for counts in (old, new)]
    return float(np.abs(shares[0] - shares[1]).max())


def _cohens_h(old: Sequence[int], new: Sequence[int]) -> float:
    angles = [2 * np.arcsin(np.sqrt(np.array(counts) / sum(counts))) for counts in (old, new)]
    return float(np.abs(angles[0] - angles[1]).max())


def _chance(table: Counts, n: float, m: float, rate: float) -> float:
    """The effect that resampling exceeds with probability `rate` at most."""
    scatter = 1 / n + 1 / m
    if table.ordered:
        return math.sqrt(math.log(math.e / rate) * scatter / 2)
    from scipy.stats import norm

    return float(norm.isf(rate / (2 * len(table.counts)))) * math.sqrt(scatter)


def _repeats(profile: CohortProfile) -> float:
    """Stays per subject: stays of one person are alike, so a table is taken to hold as many as there are subjects."""
    return max(profile.stays / max(profile.subjects, 1), 1.0)


def _by_stay(cohort: Cohort, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean of observed cells (NaN = none) and their number, `(row, variable)`; last observed step + 1, `(row,)`."""
    steps, variables = cohort.values.shape[1:]
    means = np.full((len(rows), variables), np.nan)
    cells = np.zeros((len(rows), variables), np.int64)
    last = np.zeros(len(rows), np.int64)
    for part in row_chunks(np.broadcast_to(cohort.values[:1], (len(rows), steps, variables))):
        values = np.asarray(cohort.values[rows[part]], dtype=np.float64)
        there = np.isfinite(values)
        cells[part] = there.sum(axis=1)
        total = np.where(there, values, 0.0).sum(axis=1)
        np.divide(total, cells[part], out=means[part], where=cells[part] > 0)
        last[part] = np.where(there.any(axis=2), np.arange(1, steps + 1), 0).max(axis=1, initial=0)
    return means, cells, last


def _edges(variable: Variable | StaticVariable) -> np.ndarray:
    """Public bin edges: fine on the clinical range, coarse on the plausible one."""
    fine = np.linspace(variable.scale_low, variable.scale_high, FINE_BINS + 1)
    coarse = np.linspace(variable.plausible_low, variable.plausible_high, FINE_BINS // 2 + 1)
    return np.unique(np.concatenate([fine, coarse]))


def _histogram(values: np.ndarray, edges: np.ndarray) -> tuple[int, ...]:
    """Counts of the finite values; what lies beyond the last edges counts in the outermost bins."""
    known = values[np.isfinite(values)]
    inner = np.searchsorted(edges[1:-1], known, side="right")
    return _counts(np.bincount(inner, minlength=len(edges) - 1))


def _yes_no(what: str, item: str, yes: np.ndarray) -> Counts:
    return Counts(what, item, False, (int((~yes).sum()), int(yes.sum())))


def _static_tables(values: np.ndarray, static: StaticVariable) -> list[Counts]:
    known = np.isfinite(values)
    tables = [_yes_no("static known", static.name, known)]
    if static.categories:
        codes = [code for code, _ in static.categories]
        counts = [int((values[known] == code).sum()) for code in codes]
        tables.append(Counts("static", static.name, False, (*counts, int(known.sum()) - sum(counts))))
    else:
        tables.append(Counts("static", static.name, True, _histogram(values[known], _edges(static))))
    return tables


def _counts(array: np.ndarray) -> tuple[int, ...]:
    return tuple(int(count) for count in array)
