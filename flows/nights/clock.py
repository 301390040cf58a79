"""When the next night is due, and what becomes of one that was missed: the schedule without a Prefect server.

    workspace/nights/due.json   the moment the next night is due, on the disk before anybody waits for it

cronsim reads the expression and names hours of the clock on the wall; here they become moments. Where clocks change,
an hour that does not exist is run as much later as the clock jumps, one that comes twice is run the first time only,
and a schedule that names every hour goes by real hours. That is not left to cronsim, nor to the croniter in Prefect:
in such hours both name moments that are not later than the one asked about.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo, available_timezones

from cronsim import CronSim, CronSimError

from flows.nights.night import begun_since
from flows.nights.records import Records
from flows.workspace.accepted import NIGHTS
from pipeline.core.config import Config
from pipeline.core.errors import EnvironmentProblem, UsageError
from pipeline.core.files.whole import put_whole

DUE_FILE: Final = "due.json"
LATE: Final = timedelta(minutes=10)
"""A night that is no later than this begins all the same: a restart, a night before that took a little long."""
LOOK_SECONDS: Final = 30.0
JUMP: Final = timedelta(days=1)  # no clock has been set by more: Samoa left out a day in 2011


def checked_schedule(cron: str, timezone: str) -> None:
    """Pass a schedule that names some moment; before anything starts.

    Raises:
        UsageError: no cron expression of five fields, one that names no day, or no time zone of the tz database.
    """
    if timezone not in available_timezones():
        raise UsageError(f"{timezone!r} is no time zone of the tz database, such as Europe/Berlin or UTC")
    next_night(cron, timezone, datetime.now(tz=UTC))


def next_night(cron: str, timezone: str, after: datetime) -> datetime:
    """The first moment that the schedule names and that is later than `after`.

    Raises:
        UsageError: the expression is none, or names no day of the next fifty years.
    """
    zone = ZoneInfo(timezone)
    found: datetime | None = None
    for moment, wall in _moments(cron, zone, _wall(after, zone) - JUMP):
        if found is not None and wall - JUMP > _wall(found, zone):  # what comes now is later, however clocks are set
            break
        if moment > after and (found is None or moment < found):
            found = moment
    if found is None:
        raise UsageError(f"{cron!r} names no day of the next fifty years")
    return found


def stay(
    config: Config,
    cron: str,
    timezone: str,
    start: Callable[[], object],
    *,
    now: Callable[[], datetime] = lambda: datetime.now(tz=UTC),
    sleep: Callable[[float], object] = time.sleep,
) -> None:
    """Start a night whenever one is due or records came, one at a time, until stopped; never returns.

    A night that is more than `LATE` overdue (the machine was off, or a night before took so long) is left out, or with
    `night.catch_up = "once"` begun at once: one night for however many were missed.

    Raises:
        UsageError: as `next_night`. EnvironmentProblem: the due moment cannot be kept.
    """
    due = _first(config, cron, timezone, now())
    records = Records(config, now) if config.night.records_minutes else None
    while True:
        _keep(config, cron, timezone, due)
        while (left := (due - now()).total_seconds()) > 0 and not (records and records.came()):
            sleep(min(left, LOOK_SECONDS))  # in short pieces: a machine that slept, or a clock that was set, is noticed
        begun = now()
        if config.night.catch_up == "once" or begun - due <= LATE:
            if records:
                records.begun()
            start()
        due = next_night(cron, timezone, begun)


def _moments(cron: str, zone: ZoneInfo, since: datetime) -> Iterator[tuple[datetime, datetime]]:
    """Each hour of the wall from `since` on that the schedule names, with the moment or the two that it is."""
    try:
        walls = CronSim(cron, since)
        if len(cron.split()) != 5:  # of six, cronsim reads the first as seconds, Prefect the last
            raise CronSimError
    except CronSimError:
        raise UsageError(
            f"{cron!r} is no cron expression of a day that there is: minute hour day month weekday, such as '0 2 * * *'"
        ) from None
    hourly = len(walls.hours) == 24
    for wall in walls:
        for fold in (0, 1) if hourly else (0,):
            moment = wall.replace(tzinfo=zone, fold=fold).astimezone(UTC)
            if not hourly or _wall(moment, zone) == wall:
                yield moment, wall


def _wall(moment: datetime, zone: ZoneInfo) -> datetime:
    return moment.astimezone(zone).replace(tzinfo=None)


def _first(config: Config, cron: str, timezone: str, now: datetime) -> datetime:
    """The due moment that is on the disk, unless its night has begun or the schedule is another by now."""
    ahead = next_night(cron, timezone, now)
    try:
        kept = json.loads(_due(config).read_bytes())
        due = datetime.fromisoformat(kept["due"]).astimezone(UTC)
        due = due if (kept["cron"], kept["timezone"]) == (cron, timezone) else ahead
    except FileNotFoundError:
        return ahead
    except OSError as error:
        raise EnvironmentProblem(f"{_due(config)} cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError):
        raise EnvironmentProblem(f"{_due(config)} is damaged: take it away, and the schedule begins anew") from None
    return ahead if due > ahead or begun_since(config, due) else due  # later than ahead: the clock was set back


def _keep(config: Config, cron: str, timezone: str, due: datetime) -> None:
    told = {"cron": cron, "timezone": timezone, "due": due.isoformat(timespec="seconds")}
    try:
        _due(config).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        put_whole(_due(config), json.dumps(told).encode())
    except OSError as error:
        raise EnvironmentProblem(f"{_due(config)} cannot be written: {error.strerror}") from None


def _due(config: Config) -> Path:
    return config.workspace / NIGHTS / DUE_FILE
