"""Our own rules on columns of numbers, and Great Expectations for a site's: counts only, no value, id or row.

Ours are four of the library's kinds and mean what it means by them, without the seconds that loading it takes. Where a
site's contract asks for it, it is imported inside the functions, with its telemetry off and without progress bars.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Lock
from typing import Any, Final, final

import numpy as np
from jaxtyping import Float64

from pipeline.core.types import ContractResult, ExpectationOutcome, Json

_MAX_NAMED = 5
NOT_NULL: Final = "ExpectColumnValuesToNotBeNull"
BETWEEN: Final = "ExpectColumnValuesToBeBetween"
IN_SET: Final = "ExpectColumnValuesToBeInSet"
UNIQUE: Final = "ExpectColumnValuesToBeUnique"
POSITION: Final = "position"
COUNTS_ONLY: Final[Mapping[str, Any]] = {"result_format": "SUMMARY", "partial_unexpected_count": 0}
_ONE_AT_A_TIME: Final = Lock()  # Great Expectations has one current context for the whole process


@final
@dataclass(frozen=True)
class Rule:
    """One expectation: `kind` is a Great Expectations class, `sentence` what it demands, in words."""

    column: str
    kind: str
    sentence: str
    critical: bool = True
    options: Json = field(default_factory=dict)


def known(column: str, *, critical: bool = True) -> Rule:
    """Every value is there and finite."""
    return Rule(column, NOT_NULL, "is there and finite", critical)


def between(column: str, low: float | None, high: float | None, sentence: str = "", *, critical: bool = True) -> Rule:
    """Known values lie in [low, high]; None = no bound on that side."""
    if not sentence:
        sentence = f"is at most {high:g}" if low is None else f"is at least {low:g}" if high is None else ""
        sentence = sentence or f"lies in [{low:g}, {high:g}]"
    options = {"min_value": low, "max_value": high}
    return Rule(column, BETWEEN, sentence, critical, options)


def among(column: str, values: Sequence[float], sentence: str, *, critical: bool = True) -> Rule:
    """Known values are of a set."""
    return Rule(column, IN_SET, sentence, critical, {"value_set": list(values)})


def unique(column: str, sentence: str = "is unique", *, critical: bool = True) -> Rule:
    """No known value twice; the count is of the values that are not alone."""
    return Rule(column, UNIQUE, sentence, critical)


@final
@dataclass(frozen=True, eq=False)
class Table:
    """Columns of equal length and the rules on them; not finite counts as missing.

    `names` are given for profiles, whose rows are variables, channels, tasks or splits, never people: the rows that
    break a rule are then named in the outcome.
    """

    what: str  # what a row is: "event", "stay", "variable", ...
    columns: Mapping[str, Float64[np.ndarray, " row"]]
    rules: tuple[Rule, ...]
    names: tuple[str, ...] | None = None
    min_rows: int = 1


def run_suite(suite: str, artefact: str, tables: Sequence[Table]) -> ContractResult:
    """Validate all tables; success means that no critical rule is broken."""
    outcomes = [outcome for table in tables for outcome in _validate(table)]
    broken = any(outcome.critical and not outcome.success for outcome in outcomes)
    return ContractResult(suite, artefact, not broken, tuple(outcomes))


def _validate(table: Table) -> list[ExpectationOutcome]:
    n = len(next(iter(table.columns.values()), ()))
    enough = n >= table.min_rows
    few = ExpectationOutcome(
        f"({table.what}s)", f"there are at least {table.min_rows}", True, enough, int(not enough), n
    )
    return [few, *(_held(rule, table) for rule in table.rules)] if n else [few]  # rules hold for no row at all


def _held(rule: Rule, table: Table) -> ExpectationOutcome:
    if rule.column not in table.columns:
        n = len(next(iter(table.columns.values())))
        return ExpectationOutcome(rule.column, f"{rule.sentence} (could not be evaluated)", True, False, n, n)
    rows = np.flatnonzero(_broken(rule, table.columns[rule.column]))
    names = [] if table.names is None else [table.names[row] for row in rows[:_MAX_NAMED]]
    more = f" and {len(rows) - _MAX_NAMED} more" if len(rows) > _MAX_NAMED else ""
    column = rule.column + (f" ({', '.join(names)}{more})" if names else "")
    return ExpectationOutcome(
        column, rule.sentence, rule.critical, not len(rows), len(rows), len(table.columns[rule.column])
    )


def _broken(rule: Rule, values: Float64[np.ndarray, " row"]) -> np.ndarray:
    """`(row,)` bool: what Great Expectations would call unexpected; of rules on values none is where none is known."""
    there = np.isfinite(values)
    broken: np.ndarray = ~there
    if rule.kind == NOT_NULL:
        return broken
    if rule.kind == BETWEEN:
        low, high = rule.options["min_value"], rule.options["max_value"]
        broken = (values < (-np.inf if low is None else low)) | (values > (np.inf if high is None else high))
    elif rule.kind == IN_SET:
        broken = ~np.isin(values, rule.options["value_set"])
    else:
        order = np.argsort(values, kind="stable")
        alike = values[order][1:] == values[order][:-1]
        broken = np.zeros(len(values), dtype=bool)
        broken[order] = np.append(alike, False) | np.append(False, alike)
    broken &= there
    return broken


def validated(gx: Any, suite: Any, what: str, frame: Any, result_format: Mapping[str, Any]) -> Any:
    """Great Expectations' own result of a suite on a frame in memory, in a context that is gone afterwards."""
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = _no_progress_bars()
    asset = context.data_sources.add_pandas("memory").add_dataframe_asset(what)
    batch = asset.add_batch_definition_whole_dataframe("whole").get_batch({"dataframe": frame})
    return batch.validate(suite, result_format=dict(result_format))


@contextmanager
def let_go() -> Iterator[None]:
    """Let no frame outlive its check: the current context holds its frame, and every other one itself, in a ring."""
    from great_expectations.data_context.data_context.context_factory import set_context

    with _ONE_AT_A_TIME:
        try:
            yield
        finally:
            set_context(None)
            gc.collect()


def great_expectations() -> Any:
    """The library, without telemetry."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"  # read at import: no event may leave a hospital
    import great_expectations

    return great_expectations


def _no_progress_bars() -> Any:
    from great_expectations.data_context.types.base import ProgressBarsConfig

    return ProgressBarsConfig(globally=False, metric_calculations=False)
