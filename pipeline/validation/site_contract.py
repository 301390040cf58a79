"""A site's own contract: what its next cohort is held to, drawn up from the mapping and an accepted cohort.

A file of JSON that the site keeps with its configuration, under its own version control: a Great Expectations suite
(`gx.ExpectationSuite(**file["suite"])` reads it) on a table of one row, the cohort's profile, with what each rule
demands in words and whether breaking it stops the run. It may be edited by hand. It holds aggregates of ten stays or
more; it stays at the site.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

import numpy as np

from pipeline.core.digest import digest_json
from pipeline.core.errors import DataError
from pipeline.core.files.whole import put_whole
from pipeline.core.types import Cohort, ContractResult, IngestReport
from pipeline.validation.expectations import Rule, Table, between, run_suite

FORMAT: Final = "decoct-contract/1"
_KINDS: Final = ("ExpectColumnValuesToBeBetween", "ExpectColumnValuesToNotBeNull", "ExpectColumnValuesToBeInSet")
_FEWEST: Final = 10  # stays behind a figure, or there is none
_SHARE_KEPT: Final = 0.5  # of the accepted share: below it something was lost on the way
_MEDIAN_SPAN: Final = 0.25  # of the clinical range: further than that no ward's patients move by themselves
_PREVALENCE_FACTOR: Final = 2.0
_DROPPED_FACTOR, _DROPPED_MORE = 2.0, 0.01


@final
@dataclass(frozen=True)
class SiteContract:
    """`version` counts the files that differ; `digest` is over everything in the file."""

    name: str
    version: int
    mapping_digest: str
    rules: tuple[Rule, ...]

    @property
    def digest(self) -> str:
        """What provenance holds."""
        return digest_json(self.plain())

    def plain(self) -> dict[str, Any]:
        """As the file holds it."""
        expectations = [
            {
                "type": _snake(rule.kind),
                "kwargs": {"column": rule.column, **dict(rule.options)},
                "meta": {"demands": rule.sentence, "critical": rule.critical},
            }
            for rule in self.rules
        ]
        return {
            "format": FORMAT,
            "version": self.version,
            "mapping_digest": self.mapping_digest,
            "suite": {"name": self.name, "expectations": expectations},
        }


def draft_contract(name: str, cohort: Cohort, report: IngestReport, mapping_digest: str = "") -> SiteContract:
    """Rules that `cohort` keeps with room to spare, as version 1; nothing is drawn from fewer than ten stays.

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
    return SiteContract(name, 1, mapping_digest, tuple(rules))


def cohort_profile(cohort: Cohort, report: IngestReport) -> dict[str, float]:
    """What the rules are about; NaN where fewer than ten stays stand behind a figure."""
    profile = {
        "stays": float(len(cohort.stay_ids)),
        "rows dropped": sum(report.rows_dropped.values()) / max(report.rows_read, 1),
    }
    for index, variable in enumerate(cohort.variables):
        values = cohort.values[:, :, index]
        seen = cohort.observed[:, :, index]
        stays = int(seen.any(axis=1).sum())
        found = values[seen] if stays >= _FEWEST else np.zeros(0, np.float32)
        profile[f"{variable.name}: stays observed"] = stays / max(len(values), 1)
        for what, of in (("median", np.median), ("smallest", np.min), ("largest", np.max)):
            profile[f"{variable.name}: {what}"] = float(of(found)) if len(found) else math.nan
    for index, task in enumerate(cohort.tasks):
        labels = cohort.labels[:, index]
        known = labels[np.isfinite(labels)]
        rarer = min(float((known >= 0.5).sum()), float((known < 0.5).sum()))
        profile[f"{task.name}: prevalence"] = float(known.mean()) if rarer >= _FEWEST else math.nan
        profile[f"{task.name}: labels known"] = len(known) / max(len(labels), 1)
    return profile


def check_site_contract(cohort: Cohort, report: IngestReport, contract: SiteContract) -> ContractResult:
    """Hold a cohort against the contract; a rule about what the cohort has not got is broken."""
    profile = cohort_profile(cohort, report)
    columns = {rule.column: np.array([profile.get(rule.column, math.nan)]) for rule in contract.rules}
    rules = tuple(rule for rule in contract.rules if rule.column in profile)
    absent = sorted({rule.column for rule in contract.rules if rule.column not in profile})
    there = tuple(Rule(name, "ExpectColumnValuesToNotBeNull", "is part of the cohort") for name in absent)
    return run_suite(
        f"site's ({contract.name}, version {contract.version})", "cohort", [Table("cohort", columns, (*rules, *there))]
    )


def write_contract(folder: Path, contract: SiteContract) -> tuple[Path, SiteContract]:
    """Write `folder`/NAME.json; a file of that name with other rules gives its place, and the version goes up by one.

    Raises:
        DataError: the file that is there is no contract, or the disk refuses.
    """
    path = folder / f"{contract.name}.json"
    if path.exists():
        before = read_contract(path)
        same = SiteContract(before.name, before.version, contract.mapping_digest, contract.rules)
        if same.digest == before.digest:
            return path, before
        contract = SiteContract(contract.name, before.version + 1, contract.mapping_digest, contract.rules)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        put_whole(path, (json.dumps(contract.plain(), indent=1) + "\n").encode())
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror}") from None
    return path, contract


def read_contract(path: Path) -> SiteContract:
    """Read a contract back.

    Raises:
        DataError: not found, not of this format, or a rule that is not known.
    """
    try:
        raw: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(
            f"contract {path} not found; write one with: decoct ingest RUN.toml --write-contract FOLDER"
        ) from None
    except (OSError, ValueError):
        raise DataError(f"contract {path} cannot be read as JSON") from None
    try:
        if raw["format"] != FORMAT:
            raise DataError(f"contract {path} is of another format than {FORMAT}")
        suite = raw["suite"]
        rules = tuple(_rule(entry) for entry in suite["expectations"])
        return SiteContract(str(suite["name"]), int(raw["version"]), str(raw["mapping_digest"]), rules)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise DataError(f"contract {path} is damaged: a rule lacks its type, kwargs or meta") from None


def _rule(entry: Mapping[str, Any]) -> Rule:
    kinds = {_snake(kind): kind for kind in _KINDS}
    options = dict(entry["kwargs"])
    column = str(options.pop("column"))
    if entry["type"] not in kinds:
        raise DataError(f"a contract's rule on {column} is of a kind that is not known; known are {', '.join(kinds)}")
    critical = entry["meta"]["critical"]
    if not isinstance(critical, bool):
        raise TypeError
    return Rule(column, kinds[entry["type"]], str(entry["meta"]["demands"]), critical, options)


def _snake(kind: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", kind).lower()


def _figures(value: float) -> float:
    return float(f"{value:.4g}")
