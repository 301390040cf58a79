"""Runs rules as a Great Expectations suite in memory, and keeps counts only: no value, id or row leaves this module.

Great Expectations is imported inside the functions (seconds), with its telemetry off and without progress bars. It is
given plain float64 columns (other dtypes take a slow path per value); text is coded as numbers by the caller.
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
_NAMES = "name"
POSITION: Final = "position"
COUNTS_ONLY: Final[Mapping[str, Any]] = {"result_format": "SUMMARY", "partial_unexpected_count": 0}
_LARGE_CELLS: Final = 1 << 21  # of a table: 16 MiB, too much to be left to Python's own time of collecting
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
    return Rule(column, "ExpectColumnValuesToNotBeNull", "is there and finite", critical)


def between(column: str, low: float | None, high: float | None, sentence: str = "", *, critical: bool = True) -> Rule:
    """Known values lie in [low, high]; None = no bound on that side."""
    if not sentence:
        sentence = f"is at most {high:g}" if low is None else f"is at least {low:g}" if high is None else ""
        sentence = sentence or f"lies in [{low:g}, {high:g}]"
    options = {"min_value": low, "max_value": high}
    return Rule(column, "ExpectColumnValuesToBeBetween", sentence, critical, options)


def among(column: str, values: Sequence[float], sentence: str, *, critical: bool = True) -> Rule:
    """Known values are of a set."""
    return Rule(column, "ExpectColumnValuesToBeInSet", sentence, critical, {"value_set": list(values)})


def unique(column: str, sentence: str = "is unique", *, critical: bool = True) -> Rule:
    """No known value twice; the count is of the values that are not alone."""
    return Rule(column, "ExpectColumnValuesToBeUnique", sentence, critical)


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
    outcomes = [outcome for table in tables for outcome in _validate(suite, table)]
    broken = any(outcome.critical and not outcome.success for outcome in outcomes)
    return ContractResult(suite, artefact, not broken, tuple(outcomes))


def _validate(suite: str, table: Table) -> list[ExpectationOutcome]:
    import pandas as pd

    gx = great_expectations()
    finite = {name: np.where(np.isfinite(column), column, np.nan) for name, column in table.columns.items()}
    frame = pd.DataFrame(finite, dtype=np.float64, copy=False)
    n = len(frame)
    enough = n >= table.min_rows
    few = ExpectationOutcome(
        f"({table.what}s)", f"there are at least {table.min_rows}", True, enough, int(not enough), n
    )
    if n == 0:
        return [few]  # rules on rows hold for no row at all, and say nothing
    result_format = COUNTS_ONLY
    if table.names is not None:
        frame[_NAMES] = np.array(table.names, dtype=object)
        result_format = {"result_format": "COMPLETE", "unexpected_index_column_names": [_NAMES]}
    with let_go_after(frame.size):
        return [few, *_outcomes(gx, suite, table, frame, result_format)]


def _outcomes(
    gx: Any, suite: str, table: Table, frame: Any, result_format: Mapping[str, Any]
) -> list[ExpectationOutcome]:
    """What became of each of the table's rules on `frame`; in a context of its own."""
    expectations = [
        getattr(gx.expectations, rule.kind)(column=rule.column, meta={POSITION: i}, **rule.options)
        for i, rule in enumerate(table.rules)
    ]
    found = validated(gx, gx.ExpectationSuite(name=suite, expectations=expectations), table.what, frame, result_format)
    by_position = {result.expectation_config.meta[POSITION]: result for result in found.results}
    return [_outcome(rule, by_position.get(i), len(frame)) for i, rule in enumerate(table.rules)]


def validated(gx: Any, suite: Any, what: str, frame: Any, result_format: Mapping[str, Any]) -> Any:
    """Great Expectations' own result of a suite on a frame in memory, in a context that is gone afterwards."""
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = _no_progress_bars()
    asset = context.data_sources.add_pandas("memory").add_dataframe_asset(what)
    batch = asset.add_batch_definition_whole_dataframe("whole").get_batch({"dataframe": frame})
    return batch.validate(suite, result_format=dict(result_format))


@contextmanager
def let_go_after(cells: int) -> Iterator[None]:
    """Let no frame of so many cells outlive its check: the current context holds its frame, and every other one holds
    itself, in rings that Python breaks when many objects were made, however large they are. Only what the check made
    is searched for rings: the rest of the process is set aside meanwhile, which costs nothing."""
    from great_expectations.data_context.data_context.context_factory import set_context

    large = cells >= _LARGE_CELLS
    with _ONE_AT_A_TIME:
        apart = large and not gc.get_freeze_count()
        try:
            if apart:
                gc.freeze()
            try:
                yield
            finally:
                set_context(None)
                if large:
                    gc.collect()
        finally:
            if apart:
                gc.unfreeze()


def _outcome(rule: Rule, result: Any, n: int) -> ExpectationOutcome:
    """Counts of one result; a rule that could not be evaluated is broken, whatever it is about."""
    if result is None or "unexpected_count" not in result.result:
        return ExpectationOutcome(rule.column, f"{rule.sentence} (could not be evaluated)", True, False, n, n)
    count = int(result.result["unexpected_count"])
    rows = result.result.get("unexpected_index_list") or []
    names = [str(row[_NAMES]) for row in rows]
    more = f" and {len(names) - _MAX_NAMED} more" if len(names) > _MAX_NAMED else ""
    column = rule.column + (f" ({', '.join(names[:_MAX_NAMED])}{more})" if names else "")
    return ExpectationOutcome(column, rule.sentence, rule.critical, bool(result.success), count, n)


def great_expectations() -> Any:
    """The library, without telemetry."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"  # read at import: no event may leave a hospital
    import great_expectations

    return great_expectations


def _no_progress_bars() -> Any:
    from great_expectations.data_context.types.base import ProgressBarsConfig

    return ProgressBarsConfig(globally=False, metric_calculations=False)
