"""Which of a mapping's tasks a cohort has, and their labels."""

from __future__ import annotations

import numpy as np

from pipeline.core.errors import ConfigError
from pipeline.ingest.cohort.events import OUTSIDE, USED, FlatEvents, n_own
from pipeline.ingest.mapping.label_source import LabelSource, TaskRule
from pipeline.ingest.mapping.load import SourceMapping
from pipeline.ingest.mapping.tasks import EventRule, NumberRule, task_of
from pipeline.ingest.mapping.time_to_event import TimeRule
from pipeline.ingest.mapping.toml_table import did_you_mean
from pipeline.ingest.source_tables import SourceTables


def pick_tasks(mapping: SourceMapping, tasks: tuple[str, ...], horizon_hours: float) -> tuple[TaskRule, ...]:
    """The mapping's tasks of these names (() = all), each with its label windows after the input.

    Raises:
        ConfigError: a task that the mapping lacks, or a label window that begins within the input.
    """
    rules = _placed(mapping, _pick(mapping, tasks), horizon_hours)
    _check_windows(rules, horizon_hours)
    _check_pairs(rules)
    return rules


def latest_hour(mapping: SourceMapping, horizon_hours: float, tasks: tuple[str, ...] = ()) -> float:
    """The end of the input and of all label windows: nothing later in a stay has a say in the cohort."""
    rules = _placed(mapping, _pick(mapping, tasks), horizon_hours)
    latest = max([horizon_hours, *(to for rule in rules for _, _, to in rule.windows)])
    times = mapping.prediction_times
    return latest if times is None else max(horizon_hours, latest - horizon_hours) + times.at_most_hours


def _pick(mapping: SourceMapping, tasks: tuple[str, ...]) -> tuple[TaskRule, ...]:
    known = {rule.name: rule for rule in mapping.tasks}
    unknown = [name for name in tasks if name not in known]
    if unknown or len(set(tasks)) < len(tasks):
        fault = f"has no task {unknown[0]}" if unknown else "is asked for the same task twice"
        meant = did_you_mean(unknown, known)
        raise ConfigError(f"mapping {mapping.name} {fault}{meant}; its tasks are {', '.join(known)}")
    if not known:
        raise ConfigError(f"mapping {mapping.name} defines no task")
    by_default = tuple(rule for rule in mapping.tasks if task_of(rule).kind == "binary")
    return tuple(known[name] for name in tasks) or by_default or mapping.tasks


def _placed(mapping: SourceMapping, rules: tuple[TaskRule, ...], horizon_hours: float) -> tuple[TaskRule, ...]:
    """The rules with the hours that count from the prediction made to count from where the input begins."""
    moved = (TimeRule,) if mapping.prediction_times is None else (TimeRule, EventRule)
    return tuple(rule.later(horizon_hours) if isinstance(rule, moved) else rule for rule in rules)


def _check_pairs(rules: tuple[TaskRule, ...]) -> None:
    if task_of(rules[0]).kind == "time_to_event":
        raise ConfigError(f"task {rules[0].name} is a time to an event and makes no classes; name another task first")
    timed = [rule for rule in rules if isinstance(rule, TimeRule)]
    for rule in timed:
        other = {"hours": "observed", "observed": "hours"}.get(rule.part)
        whole = rule.name.removesuffix(f"_{rule.part}")
        if other is not None and not any(name.name == f"{whole}_{other}" for name in timed):
            raise ConfigError(f"task {rule.name} says nothing without {whole}_{other}; name both")


def _check_windows(rules: tuple[TaskRule, ...], horizon_hours: float) -> None:
    for rule in rules:
        if any(after_hours < horizon_hours for _, after_hours, _ in rule.windows):
            raise ConfigError(
                f"task {rule.name}: its label window begins before the input ends ({horizon_hours:g} h), so the input "
                "would hold the answer; choose fewer steps"
            )


def labels_of_stays(rules: tuple[TaskRule, ...], tables: SourceTables) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels `(stay, task)` of the rules that look at columns of the stays alone, NaN for the others, and notes."""
    no_events = np.zeros(0, dtype=np.int32)
    source = LabelSource(tables.stays, tables.source, no_events, no_events, no_events, no_events, ())
    labels = np.full((tables.stays.height, len(rules)), np.nan, dtype=np.float32)
    for index, rule in enumerate(rules):
        if not rule.windows:
            labels[:, index] = rule.labels(source)
    return labels, _clipped_numbers(rules, source)


def fill_labels(
    labels: np.ndarray, rules: tuple[TaskRule, ...], part: SourceTables, mapping: SourceMapping, events: FlatEvents
) -> tuple[str, ...]:
    """Fill the labels that rest on events; rows beyond the window that they rest on are used, not dropped: a note."""
    n_series, n_statics = len(mapping.variables), len(mapping.static_variables)
    usable = (events.fate == USED) | (events.fate == OUTSIDE)
    series = usable & (events.name < n_series)
    outcome = usable & (events.name >= n_series + n_statics) & (events.name < n_own(mapping))
    source = LabelSource(
        stays=part.stays,
        source=part.source,
        stay=events.stay,
        variable=np.where(series, events.name, np.where(outcome, events.name - n_statics, -1)),
        hours=events.hours,
        value=events.value,
        variable_names=tuple(variable.name for variable in (*mapping.variables, *mapping.label_variables)),
        closed=mapping.closed_window,
    )
    for index, rule in enumerate(rules):
        if rule.windows:
            labels[:, index] = rule.labels(source)
    needed = [source.in_window(*window) for rule in rules for window in rule.windows]
    for_labels = np.logical_or.reduce(needed) & (events.fate == OUTSIDE) if needed else np.zeros(0, dtype=bool)
    if not for_labels.any():
        return ()
    events.fate[for_labels] = USED
    return (f"{int(for_labels.sum())} rows beyond the input window were used for labels only",)


def _clipped_numbers(rules: tuple[TaskRule, ...], source: LabelSource) -> tuple[str, ...]:
    numbers = [(rule, rule.beyond(source)) for rule in rules if isinstance(rule, NumberRule)]
    return tuple(
        f"{beyond} stays have a {rule.name} beyond {rule.low:g} to {rule.high:g} {rule.unit}, taken as the nearer limit"
        for rule, beyond in numbers
        if beyond
    )
