"""Data contracts: what must hold of events, cohort, encoded cohort and condensed set, as Great Expectations suites.

A *critical* rule stops the run; the others are shown. Outcomes carry counts and names of columns, never a value or id.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pipeline.core.errors import DataError
from pipeline.core.types import (
    Cohort,
    CondensedSet,
    ContractResult,
    EncodedCohort,
    ExpectationOutcome,
    Json,
    Split,
    Task,
    Variable,
)
from pipeline.validation.expectations import Rule, Table, among, between, known, run_suite, unique

ROUNDING = 1e-5  # of a range: single precision moves a value at a range's end by less
PREPARED = frozenset({"subjects", "imputation", "scaling", "missingness", "lengths", "summaries", "identity"})
"""Transforms after which every channel lies in [0, 1]."""
CLINICAL_SLACK = 0.25  # a condensed channel may overshoot its range by so much before it is remarked on
RUNAWAY = 1e4  # no encoder or condenser of [0, 1] data gets there unless its optimisation diverged
_MAX_SAID = 4
_TESTABLE = between(
    "testable_tasks", 1, None, "is at least 1: some task has two different labels among the held-out stays"
)
"""Without one no set can be tested, and that is better known before privacy is spent on a set."""


def check_events(
    events: Any, variables: Sequence[Variable], *, source_names: Mapping[str, str] | None = None
) -> ContractResult:
    """Long events (polars or pandas: stay_id, hours, variable, value), row by row.

    `source_names` maps the source's names to ours. What ingest drops and counts (unknown names, implausible values,
    times before admission) is reported but not critical.

    Raises:
        DataError: a column is missing, or hours or value hold something that is no number.
    """
    from pipeline.validation.profiles import event_columns

    rules = (
        known("stay_id"),
        known("hours"),
        known("variable"),
        known("value"),
        between("hours", 0, None, critical=False),
        between("code", 0, None, "names a variable of the mapping (statics do not)", critical=False),
        between("plausible", -ROUNDING, 1 + ROUNDING, "puts the value in its plausible range", critical=False),
        unique("repeat", "stay, time and variable occur together once", critical=False),
    )
    columns = event_columns(events, tuple(variables), source_names or {})
    return run_suite("events", "events", [Table("event", columns, rules)])


def check_event_blocks(
    blocks: Iterable[Any], variables: Sequence[Variable], *, source_names: Mapping[str, str] | None = None
) -> ContractResult:
    """As `check_events`, of events that come in blocks of stays, no stay in two of them: counts are added up."""
    empty = None
    outcomes: dict[tuple[str, str], ExpectationOutcome] = {}
    for events in blocks:
        empty = events[:0]
        for found in check_events(events, variables, source_names=source_names).outcomes if len(events) else ():
            before = outcomes.get((found.column, found.rule))
            outcomes[found.column, found.rule] = found if before is None else _sum_of(before, found)
    if not outcomes and empty is not None:
        return check_events(empty, variables, source_names=source_names)
    broken = any(outcome.critical and not outcome.success for outcome in outcomes.values())
    return ContractResult("events", "events", not broken, tuple(outcomes.values()))


def _sum_of(one: ExpectationOutcome, other: ExpectationOutcome) -> ExpectationOutcome:
    return replace(
        one,
        success=one.success and other.success,
        unexpected_count=one.unexpected_count + other.unexpected_count,
        n=one.n + other.n,
    )


def check_cohort(cohort: Cohort) -> ContractResult:
    """A cohort: ids and labels stay by stay, and profiles of its variables, tasks and splits."""
    from pipeline.validation.profiles import (
        split_profile,
        stay_columns,
        task_profile,
        testable_tasks,
        variable_profile,
    )

    stays = (
        known("stay_id"),
        unique("stay_id"),
        between("splits_of_subject", 1, 1, "is one: no subject in two splits"),
        between("observed_cells", 1, None, "is at least 1: the stay has a series", critical=False),
        *_split_and_labels(cohort.tasks),
    )
    variables = (
        between("stays_observed", 0.01, None, "is at least 1 % of the stays", critical=False),
        between("plausible_min", -ROUNDING, None, "is not below the plausible range"),
        between("plausible_max", None, 1 + ROUNDING, "is not above the plausible range"),
        between("sd", 1e-9, None, "is not zero", critical=False),
    )
    tables = [
        Table("stay", stay_columns(cohort), stays),
        Table("variable", variable_profile(cohort), variables, tuple(v.name for v in cohort.variables)),
        *_task_tables(task_profile(cohort.labels, cohort.split), cohort.tasks),
        _split_table(split_profile(cohort.split)),
        Table("task", testable_tasks(cohort.labels, cohort.split), (_TESTABLE,), ("all tasks",)),
    ]
    return run_suite("cohort", "cohort", tables)


def check_encoded(encoded: EncodedCohort) -> ContractResult:
    """An encoded cohort: labels stay by stay, profiles of channels, tasks, splits; merely prepared lies in [0, 1]."""
    from pipeline.validation.profiles import channel_profile, label_columns, split_profile, task_profile

    low, high = (-ROUNDING, 1 + ROUNDING) if _is_prepared(encoded.transforms) else (-RUNAWAY, RUNAWAY)
    stays = label_columns(encoded.labels, tuple(task.name for task in encoded.tasks))
    stays |= {"split": encoded.split.astype(float), "subject_index": encoded.subject_index.astype(float)}
    channels = (
        between("not_finite", 0, 0, "is zero"),
        *(known(column) for column in ("min", "max")),
        between("min", low, None),
        between("max", None, high),
        between("sd", 1e-9, None, "is not zero", critical=False),
    )
    tables = [
        Table("stay", stays, (between("subject_index", 0, None), *_split_and_labels(encoded.tasks))),
        Table("channel", channel_profile(encoded.features), channels, encoded.channels),
        *_task_tables(task_profile(encoded.labels, encoded.split), encoded.tasks),
        _split_table(split_profile(encoded.split)),
    ]
    return run_suite("encoded", "encoded cohort", tables)


def check_condensed(condensed: CondensedSet) -> ContractResult:
    """A condensed set: soft labels in [0, 1], both sides of every task, no runaway channel, no sample twice; where its
    channels have clinical units, how many samples and channels leave the plausible limits.
    """
    from pipeline.validation.profiles import channel_profile, distinct_rows, implausible_cells, label_columns

    names = tuple(task.name for task in condensed.tasks)
    samples = label_columns(condensed.labels, names) | {"sample": distinct_rows(condensed.features)}
    channels = [
        between("not_finite", 0, 0, "is zero"),
        *(known(column) for column in ("min", "max")),
        between("min", -RUNAWAY, None),
        between("max", None, RUNAWAY),
        between("sd", 1e-9, None, "is not zero", critical=False),
    ]
    columns = channel_profile(condensed.features)
    plausible: tuple[Rule, ...] = ()
    if _is_prepared(condensed.transforms):
        cells = implausible_cells(condensed.features, condensed.channels, condensed.transforms)
        columns |= {"implausible_cells": cells.sum(axis=0)}
        samples |= {"implausible_cells": cells.sum(axis=1)}
        plausible = (between("implausible_cells", 0, 0, "is zero, in clinical units", critical=False),)
        channels.append(between("min", -CLINICAL_SLACK, None, critical=False))
        channels.append(between("max", None, 1 + CLINICAL_SLACK, critical=False))
        channels.extend(plausible)
    rules = (
        *plausible,
        unique("sample", "is not another sample's copy", critical=False),
        *(between(f"label:{name}", 0, 1) for name in names),
    )
    tables = [
        Table("sample", samples, rules, min_rows=2),
        Table("channel", columns, tuple(channels), condensed.channels),
        *_side_tables(condensed),
    ]
    return run_suite("condensed", condensed.method, tables)


def implausible_samples(condensed: CondensedSet) -> int | None:
    """Samples with a value beyond its plausible limits; None where the set does not live in clinical units."""
    if not _is_prepared(condensed.transforms):
        return None
    from pipeline.validation.profiles import implausible_cells

    cells = implausible_cells(condensed.features, condensed.channels, condensed.transforms)
    return int((cells.sum(axis=1) > 0).sum())


def require(result: ContractResult) -> None:
    """Pass a result with no critical rule broken.

    Raises:
        DataError: names suite, column, count, n and rule of the broken critical rules, the first few in full.
    """
    if result.success:
        return
    broken = [outcome for outcome in result.outcomes if outcome.critical and not outcome.success]
    said = "; ".join(_sentence(outcome) for outcome in broken[:_MAX_SAID])
    more = f"; and {len(broken) - _MAX_SAID} rules more" if len(broken) > _MAX_SAID else ""
    raise DataError(f"the {result.suite} contract is broken by {result.artefact}: {said}{more}")


def both(one: ContractResult, other: ContractResult) -> ContractResult:
    """Two contracts that the same artefact is held to, as one result."""
    outcomes = (*one.outcomes, *other.outcomes)
    suite = f"{one.suite} and {other.suite}"
    return ContractResult(suite, one.artefact, one.success and other.success, outcomes)


def _sentence(outcome: ExpectationOutcome) -> str:
    return f"{outcome.column}: {outcome.unexpected_count} of {outcome.n} break the rule that it {outcome.rule}"


def _is_prepared(transforms: Sequence[Json]) -> bool:
    kinds = {str(step["kind"]) for step in transforms}
    return "scaling" in kinds and kinds <= PREPARED


def _split_and_labels(tasks: Sequence[Task]) -> tuple[Rule, ...]:
    return (
        known("split"),
        among("split", [float(part) for part in Split], "is train, tuning or held-out"),
        *(
            among(f"label:{task.name}", [0.0, 1.0], "is 0, 1 or missing")
            if task.kind == "binary"
            else between(f"label:{task.name}", 0, 1)
            for task in tasks
        ),
    )


def _task_tables(profile: Mapping[str, Any], tasks: Sequence[Task]) -> list[Table]:
    """The first task defines the classes, so it must have both in the training stays; of the others it is remarked."""
    tables = []
    for rows, critical in ((slice(0, 1), True), (slice(1, None), False)):
        names = tuple(task.name for task in tasks[rows])
        rules = (
            between("train_rarer_class", 1, None, "is at least 1: both classes are in train", critical=critical),
            between("held_out_rarer_class", 1, None, "is at least 1: both classes are held out", critical=False),
            between("known_share", 0.5, None, "is at least half", critical=False),
            between("prevalence", 0.005, 0.995, critical=False),
        )
        if names or critical:
            tables.append(Table("task", {key: column[rows] for key, column in profile.items()}, rules, names))
    return tables


def _split_table(profile: Mapping[str, Any]) -> Table:
    rules = (
        between("stays", 1, None, "is at least 1"),
        between("share", 0.05, 0.95, critical=False),
    )
    return Table("split", profile, rules, tuple(part.name.lower() for part in Split))


def _side_tables(condensed: CondensedSet) -> list[Table]:
    """A row per task: how many samples lie below and above one half; soft labels of a rare event may all lie below."""
    import numpy as np

    below, above = (condensed.labels < 0.5).sum(axis=0), (condensed.labels > 0.5).sum(axis=0)
    spread = [
        np.ptp(column[np.isfinite(column)]) if np.isfinite(column).any() else 0.0 for column in condensed.labels.T
    ]
    columns = {"rarer_side": np.minimum(below, above).astype(float), "label_spread": np.array(spread, dtype=float)}
    tables = []
    for rows, critical in ((slice(0, 1), True), (slice(1, None), False)):
        names = tuple(task.name for task in condensed.tasks[rows])
        rules = (
            between("label_spread", 1e-6, None, "is not zero: the labels differ between samples", critical=critical),
            between("rarer_side", 1, None, "is at least 1: both classes are there", critical=False),
        )
        if names or critical:
            tables.append(Table("task", {key: column[rows] for key, column in columns.items()}, rules, names))
    return tables
