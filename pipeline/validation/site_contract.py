"""A site's own contract: what its next cohort is held to, as suites of a Great Expectations project.

    FOLDER/gx/expectations/*.json     the suites, which the site edits by Great Expectations' own API or by hand
    FOLDER/gx/uncommitted/            results of every check, and Data Docs; counts below ten are left out

A suite says in its meta what a row is: {"decoct": "profile"} is one row, the cohort's figures as `draft_contract` names
them; {"decoct": "stays"} a row per stay, with the columns of `stay_frame`. Any expectation may stand in it. One whose
severity is "critical", which is the library's default, stops the run. The project stays at the site.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, final

import numpy as np

from pipeline.core.digest import digest_json
from pipeline.core.errors import DataError
from pipeline.core.types import Cohort, ContractResult, ExpectationOutcome, IngestReport, Json
from pipeline.validation.expectations import (
    COUNTS_ONLY,
    POSITION,
    Rule,
    between,
    great_expectations,
    let_go,
    validated,
)
from pipeline.validation.site_columns import FEWEST, cohort_profile, stay_frame

PROFILE, STAYS = "profile", "stays"
MARK: Final = "decoct"
"""In a suite's meta: what its rows are."""
PROJECT: Final = "gx"
SUITES: Final = "expectations"
LISTED: Final = "great_expectations.yml"
_CRITICAL: Final = "critical"
_COUNTS: Final = frozenset(
    {
        *("element_count", "unexpected_count", "unexpected_percent", "missing_count", "missing_percent"),
        *("unexpected_percent_total", "unexpected_percent_nonmissing"),
    }
)
_SHARE_KEPT: Final = 0.5  # of the accepted share: below it something was lost on the way
_MEDIAN_SPAN: Final = 0.25  # of the clinical range: further than that no ward's patients move by themselves
_PREVALENCE_FACTOR: Final = 2.0
_DROPPED_FACTOR, _DROPPED_MORE = 2.0, 0.01


@final
@dataclass(frozen=True)
class Suite:
    """One suite as the project holds it, without the ids that the library draws anew at each writing."""

    name: str
    rows: str
    expectations: tuple[Json, ...]


@final
@dataclass(frozen=True)
class SiteContract:
    """The suites of a project that are about a cohort; `others` are named and not checked."""

    project: Path
    suites: tuple[Suite, ...]
    others: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """What provenance holds: of names and expectations, not of the place."""
        return digest_json([[suite.name, suite.rows, list(suite.expectations)] for suite in self.suites])


def draft_contract(cohort: Cohort, report: IngestReport) -> tuple[Rule, ...]:
    """Rules on the profile that `cohort` keeps with room to spare; nothing is drawn from fewer than ten people.

    Of each variable the share of stays that have it and the median, of each task the share of ones and of known labels,
    of the whole the stays and the share of rows dropped; and from the mapping that no value is implausible.
    """
    profile = cohort_profile(cohort, report)
    rules = [between("stays", max(1.0, _SHARE_KEPT * profile["stays"]), None, critical=False)]
    dropped = round(min(1.0, _DROPPED_FACTOR * profile["rows dropped"] + _DROPPED_MORE), 4)
    rules.append(between("rows dropped", 0, dropped, f"is at most {dropped:g} of the rows", critical=False))
    for variable in cohort.variables:
        share, median = (profile[f"{variable.name}: {what}"] for what in ("stays observed", "median"))
        if not math.isfinite(median):
            continue
        low = round(_SHARE_KEPT * share, 4)
        rules.append(between(f"{variable.name}: stays observed", low, None, f"is at least {low:g} of the stays"))
        room = _MEDIAN_SPAN * (variable.scale_high - variable.scale_low)
        rules.append(
            between(f"{variable.name}: median", _figures(median - room), _figures(median + room), critical=False)
        )
        if variable.aggregation != "sum":  # several in a step may add up to more than one can be
            limits = variable.plausible_low, variable.plausible_high
            rules += [between(f"{variable.name}: {what}", *limits) for what in ("smallest", "largest")]
    for task in cohort.tasks:
        ones, known = profile[f"{task.name}: prevalence"], profile[f"{task.name}: labels known"]
        if math.isfinite(ones):
            limits = round(ones / _PREVALENCE_FACTOR, 4), round(min(1.0, ones * _PREVALENCE_FACTOR), 4)
            rules.append(between(f"{task.name}: prevalence", *limits, critical=False))
            rules.append(between(f"{task.name}: labels known", round(_SHARE_KEPT * known, 4), None))
    return tuple(rules)


def check_site_contract(cohort: Cohort, report: IngestReport, contract: SiteContract) -> ContractResult:
    """Hold a cohort against the contract, and put the results and Data Docs into the project where it can be written.

    A rule about a column that the cohort has not got is broken, and so is one that cannot be evaluated.

    Raises:
        DataError: the library does not know one of the expectations.
    """
    import pandas as pd

    gx = great_expectations()
    outcomes: list[ExpectationOutcome] = []
    results = []
    for suite in contract.suites:
        named = frozenset(column for entry in suite.expectations for column in columns_of(entry))
        if suite.rows == PROFILE:
            columns = {name: np.array([value]) for name, value in cohort_profile(cohort, report).items()}
        else:
            columns = stay_frame(cohort, named)
        frame = pd.DataFrame(columns, index=range(1 if suite.rows == PROFILE else len(cohort.stay_ids)))
        asked = [entry for entry in suite.expectations if set(columns_of(entry)) <= set(columns)]
        outcomes += [_absent(name) for name in sorted(named - set(columns))]
        with let_go():
            made = _suite(gx, suite.name, asked, contract.project)
            found = validated(gx, made, suite.rows, frame, COUNTS_ONLY)
        by_position = {result.expectation_config.meta[POSITION]: result for result in found.results}
        outcomes += [_outcome(entry, by_position.get(i), len(frame)) for i, entry in enumerate(asked)]
        results.append((suite.name, _counts_alone(found, len(frame) if suite.rows == STAYS else FEWEST)))
    _keep(gx, contract.project, results)
    broken = any(outcome.critical and not outcome.success for outcome in outcomes)
    names = ", ".join(suite.name for suite in contract.suites)
    return ContractResult(f"site's ({names}, {contract.digest[:12]})", "cohort", not broken, tuple(outcomes))


def columns_of(expectation: Json) -> tuple[str, ...]:
    """The columns that an expectation is about."""
    kwargs = expectation["kwargs"]
    one = [kwargs[key] for key in ("column", "column_A", "column_B") if key in kwargs]
    many = [name for key in ("column_list", "column_set") for name in kwargs.get(key) or ()]
    return tuple(map(str, (*one, *many)))


def write_contract(folder: Path, name: str, rules: tuple[Rule, ...]) -> SiteContract:
    """Make a project in `folder`, or take the one that is there, and put the suites "NAME profile", with the rules, and
    "NAME stays" into it; of the latter an existing one is left as it is.

    Raises:
        DataError: the library cannot make or change the project.
    """
    gx = great_expectations()
    entries = [
        {
            "type": rule.kind,
            "kwargs": {"column": rule.column, **dict(rule.options)},
            "meta": {"demands": rule.sentence},
            "severity": _CRITICAL if rule.critical else "warning",
        }
        for rule in rules
    ]
    labels = [{"type": "ExpectColumnValuesToBeBetween", "kwargs": {"column": "split", "min_value": 0, "max_value": 2}}]
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with let_go():
            context = gx.get_context(mode="file", project_root_dir=str(folder))
            there = {suite.name for suite in context.suites.all()}
            for rows, asked in ((PROFILE, entries), (STAYS, labels)):
                if rows == STAYS and f"{name} {rows}" in there:
                    continue
                expectations = [_expectation(gx, entry) for entry in asked]
                made = gx.ExpectationSuite(name=f"{name} {rows}", meta={MARK: rows}, expectations=expectations)
                context.suites.add_or_update(made)
    except (OSError, ValueError, gx.exceptions.GreatExpectationsError) as error:
        raise DataError(f"no Great Expectations project can be written to {folder}: {type(error).__name__}") from None
    return read_contract(folder)


def read_contract(folder: Path) -> SiteContract:
    """The suites about a cohort in the project at `folder`, or in `folder`/gx; the library is not loaded for it.

    Raises:
        DataError: no project, no suite about a cohort, or a suite that cannot be read.
    """
    project = next((path for path in (folder / PROJECT, folder) if (path / LISTED).is_file()), None)
    if project is None:
        raise DataError(
            f"contract {folder} is no Great Expectations project; write one with: "
            "decoct ingest RUN.toml --write-contract FOLDER"
        )
    suites, others = [], []
    for path in sorted((project / SUITES).rglob("*.json")):
        try:
            raw: Mapping[str, Any] = json.loads(path.read_bytes())
            rows = raw["meta"].get(MARK)
            if rows is None:
                others.append(str(raw["name"]))
                continue
            suites.append(Suite(str(raw["name"]), rows, tuple(map(_plain, raw["expectations"]))))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            raise DataError(f"contract {path} is damaged: a suite has a name, a meta and expectations") from None
        if rows not in (PROFILE, STAYS):
            raise DataError(f'contract {path}: its meta says {MARK} = "{rows}"; known are "{PROFILE}" and "{STAYS}"')
    if not any(suite.expectations for suite in suites):
        raise DataError(f'contract {project} has no suite with expectations whose meta says {{"{MARK}": "{STAYS}"}}')
    return SiteContract(project, tuple(suites), tuple(others))


def project_code(folder: Path) -> dict[str, str]:
    """Digests of what the library would run of a project: its configuration, which may name classes, and plug-ins."""
    import hashlib

    project = next((path for path in (folder / PROJECT, folder) if (path / LISTED).is_file()), folder)
    files = [project / LISTED, *sorted((project / "plugins").rglob("*.py"))]
    there = [path for path in files if path.is_file()]
    return {str(path.relative_to(project)): hashlib.sha256(path.read_bytes()).hexdigest() for path in there}


def _plain(entry: Mapping[str, Any]) -> Json:
    """An expectation without its id; what it does not say is the library's default."""
    kwargs = dict(entry["kwargs"])
    return {
        "type": str(entry["type"]),
        "kwargs": kwargs,
        "meta": dict(entry.get("meta") or {}),
        "severity": str(entry.get("severity") or _CRITICAL),
    }


def _suite(gx: Any, name: str, entries: list[Json], project: Path) -> Any:
    expectations = []
    for position, entry in enumerate(entries):
        try:
            expectations.append(_expectation(gx, {**entry, "meta": {**entry["meta"], POSITION: position}}))
        except (AttributeError, TypeError, ValueError) as error:
            raise DataError(
                f"contract {project}, suite {name}: Great Expectations does not take the expectation {entry['type']} "
                f"({type(error).__name__})"
            ) from None
    return gx.ExpectationSuite(name=name, expectations=expectations)


def _expectation(gx: Any, entry: Json) -> Any:
    kind = str(entry["type"])
    cls = getattr(gx.expectations, kind if kind[:1].isupper() else "".join(map(str.title, kind.split("_"))))
    return cls(**entry["kwargs"], meta=entry.get("meta") or {}, severity=entry.get("severity", _CRITICAL))


def _outcome(entry: Json, result: Any, n: int) -> ExpectationOutcome:
    """In words of the suite's where it has some; a rule that could not be evaluated is broken."""
    column = ", ".join(columns_of(entry)) or "(table)"
    limits = ", ".join(f"{key} {value}" for key, value in entry["kwargs"].items() if not key.startswith("column"))
    told = str(entry["meta"].get("demands") or f"keeps {entry['type']}" + (f" ({limits})" if limits else ""))
    critical = entry["severity"] == _CRITICAL
    if result is None or (result.exception_info or {}).get("raised_exception") or not result.result:
        return ExpectationOutcome(column, f"{told} (could not be evaluated)", True, False, n, n)
    count = result.result.get("unexpected_count")
    return ExpectationOutcome(
        column, told, critical, bool(result.success), int(not result.success) if count is None else int(count), n
    )


def _absent(name: str) -> ExpectationOutcome:
    return ExpectationOutcome(name, "is part of the cohort", True, False, 1, 1)


def _counts_alone(result: Any, n: int) -> Any:
    """The result as Data Docs may show it: counts and shares, none of one to nine stays, and nothing else.

    What was observed may be one stay's value (a maximum, a list of distinct values), and so may an error's message.
    """
    for found in result.results:
        counts = [found.result.get(key) or 0 for key in ("unexpected_count", "missing_count")]
        small = n < FEWEST or any(0 < count < FEWEST for count in counts)
        kept = {"element_count"} if small else _COUNTS
        found.result = {key: value for key, value in found.result.items() if key in kept}
        found.exception_info = {"raised_exception": bool(found.exception_info) and "True" in str(found.exception_info)}
    result.meta.pop("batch_markers", None)  # a digest of the rows
    return result


def _keep(gx: Any, project: Path, results: list[tuple[str, Any]]) -> None:
    """Into the project's own store, and on its pages; a project that is for reading only keeps nothing."""
    if not os.access(project, os.W_OK):
        return
    from great_expectations.core.run_identifier import RunIdentifier
    from great_expectations.data_context.types.resource_identifiers import (
        ExpectationSuiteIdentifier,
        ValidationResultIdentifier,
    )

    run = RunIdentifier("decoct", datetime.now(tz=UTC))
    with let_go(), suppress(OSError):
        context = gx.get_context(mode="file", context_root_dir=str(project))
        suites = [ExpectationSuiteIdentifier(name) for name, _ in results]
        keys = [ValidationResultIdentifier(suite, run, "cohort") for suite in suites]
        for key, (_, result) in zip(keys, results, strict=True):
            context.validation_results_store.set(key, result)
        context.build_data_docs(resource_identifiers=[*suites, *keys])


def _figures(value: float) -> float:
    return float(f"{value:.4g}")
