"""What a monitoring system asks of a workspace: a level, why, and the figures behind it; no patient's value, no path.

Levels and exit codes are those of the Monitoring Plugins, which Icinga, Nagios, Checkmk and their kin run. The figures
are written for Prometheus as well, as a file that the node exporter's textfile collector reads.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, final

from flows.environment import FREE_DISK_GIB
from flows.nights.forecast import Forecast, forecast
from flows.nights.night import GOOD, RECORD_FILE, Night, read_record
from flows.progress import say
from flows.watch.figures import drift_reports
from flows.watch.page import clean
from flows.watch.releases import epsilon_left
from flows.workspace.accepted import NIGHTS
from pipeline.core.config import Config
from pipeline.core.errors import DecoctError, EnvironmentProblem
from pipeline.core.types.drift import LEVELS as DRIFT_LEVELS

OK, WARNING, CRITICAL, UNKNOWN = "OK", "WARNING", "CRITICAL", "UNKNOWN"
EXIT_CODES: Final = {OK: 0, WARNING: 1, CRITICAL: 2, UNKNOWN: 3}
_WORST_FIRST: Final = (CRITICAL, WARNING, UNKNOWN, OK)
MAX_AGE_HOURS: Final = 26.0
"""How old a good end may be: a night, and two hours for a late one."""
SHARE_LEFT: Final = 0.1
"""Of the budget: with less left it is time to plan."""


@final
@dataclass(frozen=True)
class StatusLine:
    """One line: what was looked at, its level, and a sentence."""

    what: str
    level: str
    told: str


@final
@dataclass(frozen=True)
class RunFigures:
    """Of the nights of one configuration; times are seconds since 1970, UTC, and `drift` "" where nothing compared."""

    run: str
    state: str
    exit_code: int
    ended: float
    last_good: float | None
    wall_seconds: float
    seconds: dict[str, float]
    version: int
    drift: str


@final
@dataclass(frozen=True)
class Status:
    """`epsilon` is (left for those who gave most, the whole budget of a period), None where nothing was reserved.

    `forecast`: None where what it rests on cannot be read, which is a finding.
    """

    findings: tuple[StatusLine, ...]
    runs: tuple[RunFigures, ...]
    disk_free_bytes: int
    epsilon: tuple[float, float] | None
    forecast: Forecast | None = None

    @property
    def level(self) -> str:
        """The worst of all findings."""
        return worst(finding.level for finding in self.findings)


def worst(levels: Iterable[str]) -> str:
    """The worst of some levels; without any nothing is known."""
    found = {*levels} or {UNKNOWN}
    return next(level for level in _WORST_FIRST if level in found)


def status(workspace: Path, *, now: datetime, max_age_hours: float = MAX_AGE_HOURS, only: Sequence[str] = ()) -> Status:
    """How the workspace's nights are; what cannot be read is a finding, and never good.

    Args:
        only: the configurations to look at; none = all that ever ended here, retired ones among them.

    Raises:
        EnvironmentProblem: there is no workspace.
    """
    try:
        free = shutil.disk_usage(workspace).free
    except OSError as error:
        raise EnvironmentProblem(f"the workspace {workspace} cannot be read: {error.strerror}") from None
    enough = free >= FREE_DISK_GIB * 2**30
    findings = [StatusLine("disk", OK if enough else CRITICAL, f"{free / 2**30:.1f} GiB free, {FREE_DISK_GIB} wanted")]
    runs: tuple[RunFigures, ...] = ()
    try:
        nights = read_record(workspace)
        runs = tuple(_figures(workspace, tuple(night for night in nights if not only or night.run in only)))
        newest = {night.run: night for night in nights}
        findings += [judged(found, newest[found.run].sentence, now, timedelta(hours=max_age_hours)) for found in runs]
        for name in only:
            if name not in newest:
                findings.append(StatusLine(f"run {name}", UNKNOWN, "no scheduled run of this name has ended here"))
        if not runs and not only:
            findings.append(StatusLine("nights", UNKNOWN, "no scheduled run has ended here yet"))
    except DecoctError as error:
        findings.append(StatusLine("nights", CRITICAL, clean(str(error))))
    epsilon = None
    try:
        epsilon = epsilon_left(workspace)
        if epsilon is not None:
            left, budget = epsilon
            level = WARNING if left < SHARE_LEFT * budget else OK
            findings.append(StatusLine("privacy budget", level, f"epsilon {left:.2f} of {budget:.2f} left"))
    except DecoctError as error:
        findings.append(StatusLine("privacy budget", CRITICAL, clean(str(error))))
    ahead = None
    try:
        ahead = forecast(workspace, workspace / NIGHTS / RECORD_FILE, FREE_DISK_GIB * 2**30, now)
        findings.append(StatusLine("forecast", WARNING if ahead.soon(now) else OK, ahead.told))
    except DecoctError as error:
        findings.append(StatusLine("forecast", UNKNOWN, clean(str(error))))
    return Status(tuple(findings), runs, free, epsilon, ahead)


@contextmanager
def measured(plan: Config) -> Iterator[None]:
    """Write the file that `night.metrics` names when the block ends, however it ends; if it cannot be, that is said."""
    try:
        yield
    finally:
        if plan.night.metrics is not None:
            try:
                write_metrics(status(plan.workspace, now=datetime.now(tz=UTC)), plan.night.metrics)
            except Exception as error:  # the night's own outcome counts, and its exit code
                what = str(error) if isinstance(error, DecoctError) else type(error).__name__
                say(f"  the metrics could not be made: {what}")


def write_metrics(found: Status, path: Path) -> None:
    """The figures in Prometheus's text format, put in place whole.

    Raises:
        EnvironmentProblem: the file cannot be written.
    """
    from prometheus_client import CollectorRegistry, Gauge, write_to_textfile

    registry = CollectorRegistry()

    def gauge(name: str, told: str, *labels: str) -> Gauge:
        return Gauge(f"decoct_{name}", told, labels, registry=registry)

    gauge("status", "0 ok, 1 warning, 2 critical, 3 unknown").set(EXIT_CODES[found.level])
    gauge("disk_free_bytes", "free where the workspace lies").set(found.disk_free_bytes)
    if found.epsilon is not None:
        gauge("privacy_epsilon_left", "for those who gave most in this period").set(found.epsilon[0])
        gauge("privacy_epsilon_budget", "of a period").set(found.epsilon[1])
    if found.forecast is not None and found.forecast.disk_full is not None:
        gauge("disk_full_timestamp_seconds", "when it will be, at the present rate").set(found.forecast.disk_full)
    if found.forecast is not None and found.forecast.budget_ends is not None:
        told = "when a query will be refused, at the present rate"
        gauge("privacy_budget_ends_timestamp_seconds", told).set(found.forecast.budget_ends)
    ended = gauge("night_ended_timestamp_seconds", "when the newest scheduled run ended", "run")
    good = gauge("night_last_good_timestamp_seconds", "when one ended well", "run")
    state = gauge("night_state", "1 for the newest end", "run", "state")
    code = gauge("night_exit_code", "of the newest end", "run")
    wall = gauge("night_seconds", "wall clock of the newest", "run")
    stage = gauge("stage_seconds", "of the newest; 0 = found in the store", "run", "stage")
    version = gauge("release_version", "the newest release or proposal; 0 = none", "run")
    drift = gauge("drift_level", ", ".join(f"{rank} {level}" for rank, level in enumerate(DRIFT_LEVELS)), "run")
    for run in found.runs:
        ended.labels(run.run).set(run.ended)
        if run.last_good is not None:
            good.labels(run.run).set(run.last_good)
        state.labels(run.run, run.state).set(1)
        code.labels(run.run).set(run.exit_code)
        wall.labels(run.run).set(run.wall_seconds)
        for name, seconds in run.seconds.items():
            stage.labels(run.run, name).set(seconds)
        version.labels(run.run).set(run.version)
        if run.drift:
            drift.labels(run.run).set(DRIFT_LEVELS.index(run.drift))
    try:
        write_to_textfile(str(path), registry)
    except OSError as error:
        raise EnvironmentProblem(f"the metrics cannot be written to {path}: {error.strerror}") from None


def _figures(workspace: Path, nights: tuple[Night, ...]) -> Iterator[RunFigures]:
    for run in dict.fromkeys(night.run for night in nights):
        mine = [night for night in nights if night.run == run]
        last, good = mine[-1], [_moment(night) for night in mine if night.state in GOOD]
        compared = drift_reports(workspace, [(last.ended, run, digest) for digest in last.digests.get("drift", ())])
        yield RunFigures(
            run,
            last.state,
            last.exit_code,
            _moment(last),
            good[-1] if good else None,
            last.wall_seconds,
            dict(last.seconds),
            next((night.version for night in reversed(mine) if night.version), 0),
            compared[-1]["level"] if compared else "",
        )


def judged(found: RunFigures, sentence: str, now: datetime, most: timedelta) -> StatusLine:
    """Stopped by hand is a warning; refused, failed, killed, or no good end for too long is critical."""
    name = f"run {found.run}"
    if found.state not in GOOD and found.state != "interrupted":
        return StatusLine(name, CRITICAL, f"{found.state}, exit code {found.exit_code}: {clean(sentence)}")
    if found.last_good is None:
        return StatusLine(name, WARNING, "interrupted, and none has ended well yet")
    age = now.timestamp() - found.last_good
    hours = f"{age / 3600:.1f} h ago"
    if age < 0:
        return StatusLine(name, CRITICAL, "the clock has gone back: the newest good end lies in the future")
    if age > most.total_seconds():
        return StatusLine(
            name, CRITICAL, f"the newest good end was {hours}, {most.total_seconds() / 3600:g} h are allowed"
        )
    if found.state == "interrupted":
        return StatusLine(name, WARNING, f"interrupted; the newest good end was {hours}")
    level = WARNING if found.drift in DRIFT_LEVELS[2:] else OK
    told = f"{found.state} {hours}" + (f", version {found.version}" if found.version else "")
    return StatusLine(name, level, told + (f", drift: {found.drift}" if found.drift not in ("", "none") else ""))


def _moment(night: Night) -> float:
    return datetime.fromisoformat(night.ended).timestamp()
