"""The figures of a workspace over its nights, for the watch page: audit, utility, drift; small cells held back.

What is read was computed by the runs; nothing is computed from patients here, and nothing is written.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

from flows.workspace.history import HISTORY_URL, history_of
from flows.workspace.job import CONFIG_FILE
from pipeline.audit.history import FILE_NAME, Night
from pipeline.core.codec import from_plain
from pipeline.core.config import Config
from pipeline.core.errors import DataError, DecoctError
from pipeline.core.types import AttackResult, UtilityReport
from pipeline.core.types.drift import LEVELS, DriftReport
from pipeline.core.types.found import FULL_DATA, RANDOM_REAL
from pipeline.report.suppress import SUPPRESSED, is_small
from pipeline.sharing.policy.load import Policy, load_policy
from pipeline.sharing.policy.rules import AttackVerdict, attack_verdicts
from pipeline.store import Store

LAST: Final = 30  # nights on the page
PANELS: Final = 12  # of one threat model
TOP: Final = 8  # remarkable rows of a drift table
BUNDLE: Final = "bundle"  # the artefact name of the scan of released bytes
_RANK: Final = {"FAIL": 2, "INCONCLUSIVE": 1, "PASS": 0}
T = TypeVar("T")

Data = dict[str, Any]
Stamped = tuple[str, str, str]  # time, run, a digest or its beginning


def configurations(workspace: Path) -> dict[str, Config]:
    """The configuration of each run's folder; folders of another version are left out."""
    found = {}
    for path in sorted((workspace / "runs").glob(f"*/{CONFIG_FILE}")):
        try:
            found[path.parent.name] = Config.model_validate(json.loads(path.read_bytes()))
        except (OSError, ValueError):
            continue
    return found


def audit_trends(workspace: Path, configs: Mapping[str, Config], environ: Mapping[str, str]) -> list[Data]:
    """Per run, artefact and threat model the figures that decide, nearest to their limit first, over the last nights.

    Raises:
        EnvironmentProblem: the history cannot be used.
    """
    if HISTORY_URL not in environ and not (workspace / FILE_NAME).exists():
        return []
    nights = history_of(workspace).nights(last=LAST)
    trends = [
        trend
        for run in dict.fromkeys(night.name for night in nights)
        for trend in _of_run(run, [night for night in nights if night.name == run], configs.get(run))
    ]
    return sorted(trends, key=lambda trend: not trend["judged"])


def _policy(config: Config | None) -> Policy | None:
    try:
        return None if config is None else load_policy(config.release.policy)
    except DecoctError:
        return None


def _of_run(run: str, nights: Sequence[Night], config: Config | None) -> Iterator[Data]:
    """Every artefact that the run's newest audit looked at; `judged` are what is up for release and its bytes."""
    policy = _policy(config)
    released = {BUNDLE, config.release.artefact} if config else {BUNDLE}
    for report in nights[-1].reports:
        verdicts = attack_verdicts(policy, (report,)) if policy else ()
        judged = {id(item.result): item for item in verdicts}
        for model in dict.fromkeys(result.threat_model for result in report.results if result.gates):
            mine = [result for result in report.results if result.gates and result.threat_model == model]
            mine.sort(key=lambda result: _nearness(result, judged.get(id(result))), reverse=True)
            # an attack that gives a figure several times, with more and more known pairs, counts by its worst
            mine = list({_key(result): result for result in reversed(mine)}.values())[::-1]
            alone = report.artefact in released  # of what is up for release every figure is drawn, of others one
            for told in mine[:PANELS] if alone else mine[:1]:
                yield {
                    "run": run,
                    "artefact": report.artefact,
                    "judged": alone,
                    "threat_model": model,
                    "attack": told.attack,
                    "statistic": told.statistic,
                    "limit": judged[id(told)].max_upper if id(told) in judged else None,
                    "points": [_point(night, report.artefact, told) for night in nights],
                    "latest": [_latest(result, judged.get(id(result))) for result in ([told] if alone else mine)],
                    "controls_held": report.controls_held,
                    "not_run": len({item.attack for item in report.not_run if item.threat_model == model}),
                }


def _key(result: AttackResult) -> tuple[str, str, str]:
    return (result.attack, result.threat_model, result.statistic)


def _nearness(result: AttackResult, verdict: AttackVerdict | None) -> tuple[int, bool, float]:
    """Larger = nearer to its limit, or further above it; shares go before counts that are within theirs."""
    if verdict is None or verdict.max_upper is None:
        return (-1, False, result.high)
    above = result.high > verdict.max_upper
    return (_RANK[verdict.verdict], above or result.statistic != "count", result.high - verdict.max_upper)


def _latest(result: AttackResult, verdict: AttackVerdict | None) -> Data:
    return {
        "attack": result.attack,
        "statistic": result.statistic,
        **_shown(result),
        "limit": None if verdict is None else verdict.max_upper,
        "verdict": "" if verdict is None else verdict.verdict,
    }


def _point(night: Night, artefact: str, told: AttackResult) -> Data:
    found = [result for report in night.reports if report.artefact == artefact for result in report.results]
    row = max((result for result in found if _key(result) == _key(told)), key=lambda result: result.high, default=None)
    figures = {"rate": None, "low": None, "high": None, "n": None} if row is None else _shown(row)
    return {"audit": night.id, "at": night.recorded_at, **figures, "accepted": _accepted(night, artefact)}


def _accepted(night: Night, artefact: str) -> str | None:
    pairs = zip(night.reports, night.accepted, strict=True)
    return next((name for report, name in pairs if report.artefact == artefact), None)


def _shown(result: AttackResult) -> Data:
    """Figures that rest on fewer than ten people, and counts of one to nine, are held back."""
    if is_small(result.n):
        return {"rate": SUPPRESSED, "low": SUPPRESSED, "high": SUPPRESSED, "n": SUPPRESSED}
    figures = {"rate": result.rate, "low": result.low, "high": result.high}
    if result.statistic == "count":
        figures = {name: SUPPRESSED if 0 < value < 10 else value for name, value in figures.items()}  # type: ignore[misc]
    return {name: _rounded(value) for name, value in figures.items()} | {"n": result.n}


def _rounded(value: float | str) -> float | str:
    return value if isinstance(value, str) else float(f"{value:.3g}")


def utility_trends(workspace: Path, configs: Mapping[str, Config], made: Sequence[Stamped]) -> list[Data]:
    """Per run: the released artefact's scores over the last nights, beside full data and random real stays."""
    trends = []
    for run, config in configs.items():
        reports = [(at, _read(workspace, digest, UtilityReport)) for at, name, digest in made if name == run]
        known = [(at, report) for at, report in reports if report is not None] or _of_report(workspace, run)
        if known:
            trends.append(_utility(run, config, known[-LAST:]))
    return trends


def _utility(run: str, config: Config, known: Sequence[tuple[str, UtilityReport]]) -> Data:
    newest = known[-1][1]
    first = newest.scores[0].task if newest.scores else ""
    metric = "auroc" if any(row.metric == "auroc" for row in newest.scores if row.task == first) else "r2"
    names = [row.model for row in newest.scores]
    model = config.utility.floor_model if config.utility.floor_model in names else (names or [""])[0]
    sets = {"released": config.release.artefact, "full": FULL_DATA, "random": RANDOM_REAL}
    points = []
    for at, report in known:
        found = {key: report.score(name, model, metric, first) for key, name in sets.items()}
        shown = {key: None if row is None or is_small(row.n_test) else _score(row) for key, row in found.items()}
        points.append({"at": at, **shown})
    return {
        "run": run,
        "artefact": config.release.artefact,
        "task": first,
        "model": model,
        "metric": metric,
        "floor": config.utility.floor_auroc if metric == "auroc" else None,
        "points": points,
    }


def _score(row: Any) -> Data:
    return {"mean": _rounded(row.mean), "low": _rounded(row.low), "high": _rounded(row.high)}


def _of_report(workspace: Path, run: str) -> list[tuple[str, UtilityReport]]:
    """What the run's own report says, where neither a night nor a log has kept the digest."""
    try:
        data = json.loads((workspace / "runs" / run / "report.json").read_bytes())
        return [(str(data["created"]), from_plain(UtilityReport, data["utility"]))]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def drift_reports(workspace: Path, made: Sequence[Stamped]) -> list[Data]:
    """Of each run, the newest nights' drift against the last accepted cohort: how severe, and what stood out."""
    found = []
    for at, run, digest in made:
        report = _read(workspace, digest, DriftReport)
        if report is not None and report.against:
            found.append(_drift(at, run, report))
    return found[-LAST:]


def _drift(at: str, run: str, report: DriftReport) -> Data:
    rows = [row for row in report.rows if row.level != "none"]
    shown = [row for row in rows if not (is_small(row.n_before) or is_small(row.n_now))]
    return {
        "at": at,
        "run": run,
        "against": report.against,
        "level": report.level,
        "levels": {level: sum(row.level == level for row in report.rows) for level in LEVELS},
        "rows": [
            {"what": row.what, "item": row.item, "among": row.among, "level": row.level, "effect": _rounded(row.effect)}
            for row in shown[:TOP]
        ],
    }


def _read(workspace: Path, prefix: str, kind: type[T]) -> T | None:
    """An artefact by its digest or the beginning of one; None where it is gone, damaged, or another kind."""
    objects = workspace / "store" / "objects"
    if len(prefix) < 12 or not prefix.isalnum() or not objects.is_dir():
        return None
    found = sorted((objects / prefix[:2]).glob(f"{prefix}*"))
    try:
        return Store(workspace / "store").get(found[0].name, kind) if len(found) == 1 else None
    except (DataError, OSError):
        return None
