"""The schedule's clock: always later, in every time zone, and one start for each night whatever becomes of us."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import pairwise
from pathlib import Path
from zoneinfo import ZoneInfo, available_timezones

import pytest
from cronsim import CronSim
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.nights import clock
from flows.nights.clock import LATE, next_night, stay
from flows.nights.night import run_night
from flows.nights.pinned import programs
from flows.templates import commented_config
from pipeline.core.config import Config, LongTableSource, NightConfig, load_config
from pipeline.core.errors import EnvironmentProblem

ZONES = sorted(available_timezones())
CRONS = ("0 2 * * *", "30 1 * * *", "30 2 * * *", "0 0 * * *", "15 3 * * 0", "*/20 * * * *", "0 * * * *", "0 */2 * * *")
FIRST, LAST = datetime(2026, 1, 1, tzinfo=UTC), datetime(2031, 1, 1, tzinfo=UTC)
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)


@cache
def changes(zone: str) -> tuple[tuple[datetime, timedelta, timedelta], ...]:
    """Each moment of the five years at which the zone's clocks are set, with the offsets before and after."""
    found, day, info = [], FIRST, ZoneInfo(zone)
    while day < LAST:  # no zone sets its clocks twice within a week
        if day.astimezone(info).utcoffset() != (day + 7 * DAY).astimezone(info).utcoffset():
            low, high = day, day + 7 * DAY
            while high - low > MINUTE:
                middle = low + (high - low) // 2
                same = middle.astimezone(info).utcoffset() == low.astimezone(info).utcoffset()
                low, high = (middle, high) if same else (low, middle)
            high = high.replace(second=0, microsecond=0)
            found.append((high, low.astimezone(info).utcoffset(), high.astimezone(info).utcoffset()))
        day += 7 * DAY
    return tuple(found)  # type: ignore[arg-type]


def wall(moment: datetime, zone: str) -> datetime:
    return moment.astimezone(ZoneInfo(zone)).replace(tzinfo=None)


@cache
def named(cron: str, hour: int, minute: int) -> bool:
    """Whether the daily expression names this minute of the clock on the wall."""
    parts = CronSim(cron, datetime(2026, 1, 1))
    return hour in parts.hours and minute in parts.minutes


def due_by_looking_at_every_minute(cron: str, zone: str, after: datetime) -> datetime:
    """The law, minute by minute: the wall's minute is named and comes for the first time, or lay in a gap."""
    info, hourly = ZoneInfo(zone), cron.split()[1] == "*"
    near = [change for change in changes(zone) if abs(change[0] - after) < 2 * DAY]
    moment = after.replace(second=0, microsecond=0) + MINUTE
    while True:
        local = moment.astimezone(info)
        if named(cron, local.hour, local.minute) and (local.fold == 0 or hourly):
            return moment
        for change, before, since in () if hourly else near:
            lost = moment + before  # the wall's minute, had the clock not been set
            if change <= moment < change + (since - before) and named(cron, lost.hour, lost.minute):
                return moment
        moment += MINUTE


@settings(max_examples=150, deadline=None)
@given(
    zone=st.sampled_from(ZONES),
    cron=st.sampled_from(CRONS),
    minutes=st.integers(0, int((LAST - FIRST) / MINUTE)),
    seconds=st.sampled_from([0, 1, 59]),
)
def test_the_next_night_is_later_in_any_zone(zone: str, cron: str, minutes: int, seconds: int) -> None:
    after = FIRST + minutes * MINUTE + timedelta(seconds=seconds)
    assert next_night(cron, zone, after) > after


@pytest.mark.parametrize(
    ("zone", "offset"),
    [(zone, offset) for zone in ("Europe/Berlin", "America/New_York", "Europe/London") for offset in (1, 2)]
    + [("Australia/Lord_Howe", 2), ("America/Havana", 0), ("Africa/Cairo", 0), ("Pacific/Chatham", 2)],
)
def test_around_a_change_of_clocks_it_is_the_minute_that_the_law_names(zone: str, offset: int) -> None:
    for change, _, _ in changes(zone)[:2]:
        for cron in (f"0 {offset} * * *", f"30 {offset} * * *", "0 * * * *", f"*/30 {offset} * * *"):
            for minutes in range(-120, 121, 20):
                after = change + minutes * MINUTE
                assert next_night(cron, zone, after) == due_by_looking_at_every_minute(cron, zone, after)


@pytest.mark.slow
def test_no_zone_and_no_change_of_five_years_gives_a_moment_that_is_not_later() -> None:
    """One of each kind of change: no expression names a day of a month, so that the year of a change says nothing."""
    kinds = {
        (wall(change, zone).time(), wall(change, zone).weekday(), before, since): (zone, change)
        for zone in ZONES
        for change, before, since in changes(zone)
    }
    assert len(kinds) > 50
    for zone, change in kinds.values():
        for cron in CRONS:
            for minutes in range(-150, 151, 30):
                after = change + minutes * MINUTE
                assert next_night(cron, zone, after) > after, (zone, cron, after)


def test_an_hourly_schedule_runs_each_real_hour_of_autumn_once() -> None:
    moment = datetime(2027, 10, 30, 12, 30, tzinfo=UTC)  # Berlin sets its clocks back the night after
    hours = []
    for _ in range(36):
        moment = next_night("0 * * * *", "Europe/Berlin", moment)
        hours.append(moment)
    assert [later - earlier for earlier, later in pairwise(hours)] == [HOUR] * 35


@pytest.mark.parametrize(
    ("zone", "after", "due"),
    [
        ("UTC", "2026-11-23T01:59:59", "2026-11-23T02:00:00"),
        ("UTC", "2026-11-23T02:00:00", "2026-11-24T02:00:00"),  # the night that has just begun is not begun again
        ("Europe/Berlin", "2026-07-01T00:30:00", "2026-07-02T00:00:00"),
        ("Europe/Berlin", "2026-12-01T00:30:00", "2026-12-01T01:00:00"),
        ("Europe/Berlin", "2027-03-28T00:28:00", "2027-03-28T01:00:00"),  # 2 o'clock is 3 o'clock, and not in the past
        ("Europe/Berlin", "2027-03-28T01:00:00", "2027-03-29T00:00:00"),
        ("Europe/Berlin", "2027-10-31T00:30:00", "2027-11-01T01:00:00"),  # the second 2 o'clock is no second night
    ],
)
def test_the_next_night_is_the_schedules_in_its_time_zone(zone: str, after: str, due: str) -> None:
    begin = datetime.fromisoformat(after).replace(tzinfo=UTC)
    assert next_night("0 2 * * *", zone, begin) == datetime.fromisoformat(due).replace(tzinfo=UTC)


class Stopped(Exception):
    """The process ends: the fake clock's way out of a loop that never returns."""


class Clock:
    """A clock that only sleeping moves, up to a last moment."""

    def __init__(self, begin: datetime, until: datetime) -> None:
        self.moment, self.until = begin, until

    def now(self) -> datetime:
        return self.moment

    def sleep(self, seconds: float) -> None:
        self.moment += timedelta(seconds=seconds)
        if self.moment >= self.until:
            raise Stopped


@pytest.fixture
def config(tmp_path: Path) -> Config:
    text = commented_config().replace('licence = ""', 'licence = "CC0-1.0"')
    (tmp_path / "night.toml").write_text(text, encoding="utf-8")
    return load_config(tmp_path / "night.toml")


def nights(
    config: Config,
    begin: datetime,
    until: datetime,
    *,
    cron: str = "0 2 * * *",
    zone: str = "UTC",
    takes: timedelta = timedelta(),
) -> list[datetime]:
    """When nights were started between the two moments by one process."""
    hands, started = Clock(begin, until), list[datetime]()

    def start() -> None:
        started.append(hands.moment)
        hands.sleep(takes.total_seconds())

    with pytest.raises(Stopped):
        stay(config, cron, zone, start, now=hands.now, sleep=hands.sleep)
    return started


@pytest.fixture
def long_sleeps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "LOOK_SECONDS", 3600.0)
    monkeypatch.setattr(clock, "put_whole", lambda path, data: path.write_bytes(data))  # a year of syncs says nothing


@pytest.mark.parametrize(
    ("zone", "cron"),
    [
        ("Europe/Berlin", "0 2 * * *"),
        ("America/New_York", "30 2 * * *"),
        ("Europe/London", "30 1 * * *"),
        ("Australia/Lord_Howe", "15 2 * * *"),
        ("UTC", "0 2 * * *"),
    ],
)
def test_a_year_of_nights_has_one_start_each(config: Config, long_sleeps: None, zone: str, cron: str) -> None:
    begin = datetime(2027, 1, 1, 12, tzinfo=UTC)
    started = nights(config, begin, begin + 365 * DAY, cron=cron, zone=zone, takes=timedelta(minutes=40))
    assert len(started) == 365
    assert len({wall(moment, zone).date() for moment in started}) == 365


BEGIN = datetime(2026, 11, 23, 12, tzinfo=UTC)


def begun(config: Config, moment: datetime, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a night on record that began then."""
    monkeypatch.setattr("flows.nights.night._now", lambda: moment.isoformat(timespec="seconds"))

    def nothing(_: str, __: object) -> None:
        raise EnvironmentProblem("the disk is full")

    run_night(config, nothing)


def test_a_restart_neither_loses_nor_repeats_a_night(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    due = datetime(2026, 11, 24, 2, tzinfo=UTC)
    assert nights(config, BEGIN, due - MINUTE) == []  # stopped a minute before it was due
    kept = json.loads((config.workspace / "nights" / "due.json").read_bytes())
    assert kept == {"cron": "0 2 * * *", "timezone": "UTC", "due": "2026-11-24T02:00:00+00:00"}
    assert nights(config, due + MINUTE, due + HOUR) == [due + MINUTE]  # back a minute after: not lost
    begun(config, due + MINUTE, monkeypatch)
    (config.workspace / "nights" / "due.json").write_text(json.dumps(kept), encoding="utf-8")  # killed before the next
    assert nights(config, due + 2 * MINUTE, due + HOUR) == []  # not repeated
    assert nights(config, due + HOUR, due + DAY + HOUR) == [due + DAY]


@pytest.mark.parametrize(("catch_up", "wanted"), [("skip", 0), ("once", 1)])
def test_what_was_missed_is_left_out_or_begun_once(config: Config, catch_up: str, wanted: int) -> None:
    chosen = config.model_copy(update={"night": config.night.model_copy(update={"catch_up": catch_up})})
    assert nights(chosen, BEGIN, BEGIN + HOUR) == []
    back = BEGIN + 3 * DAY  # three nights were missed
    assert nights(chosen, back, back + HOUR) == [back] * wanted


@pytest.mark.parametrize(("catch_up", "wanted"), [("skip", 12), ("once", 16)])
def test_a_night_longer_than_the_schedules_step_is_not_followed_by_a_queue(
    config: Config, catch_up: str, wanted: int
) -> None:
    chosen = config.model_copy(update={"night": config.night.model_copy(update={"catch_up": catch_up})})
    started = nights(chosen, BEGIN, BEGIN + DAY, cron="0 * * * *", takes=timedelta(minutes=90))
    assert len(started) == len(set(started))
    assert len(started) == wanted


def test_a_little_late_is_not_missed(config: Config) -> None:
    assert nights(config, BEGIN, BEGIN + HOUR) == []
    due = datetime(2026, 11, 24, 2, tzinfo=UTC)
    assert nights(config, due + LATE, due + HOUR) == [due + LATE]


def test_a_clock_set_back_and_another_schedule_are_not_held_to_what_was_kept(config: Config) -> None:
    assert nights(config, BEGIN + 400 * DAY, BEGIN + 400 * DAY + HOUR) == []  # the clock was a year ahead
    assert nights(config, BEGIN, BEGIN + DAY) == [datetime(2026, 11, 24, 2, tzinfo=UTC)]
    assert nights(config, BEGIN, BEGIN + DAY, cron="0 3 * * *") == [datetime(2026, 11, 24, 3, tzinfo=UTC)]


@pytest.mark.parametrize(
    "damage", [lambda path: path.write_text("{"), lambda path: path.write_text("[]"), lambda path: path.mkdir()]
)
def test_a_damaged_due_moment_is_told(config: Config, damage: Callable[[Path], object]) -> None:
    path = config.workspace / "nights" / "due.json"
    path.parent.mkdir(parents=True)
    damage(path)
    with pytest.raises(EnvironmentProblem, match=r"due\.json (is damaged|cannot be read)"):
        stay(config, "0 2 * * *", "UTC", lambda: None)


def on_records(config: Config, **more: object) -> Config:
    source = LongTableSource(kind="long_table", events=config.workspace / "in", stays=None)
    night = config.night.model_copy(update={"records_minutes": 15, **more})
    return config.model_copy(update={"night": night, "source": source})


def deliveries(config: Config, moments: dict[timedelta, str], until: timedelta) -> list[timedelta]:
    """When nights begin, where files are written at these moments after the start; nights are due at 2 o'clock."""
    begin = datetime(2027, 1, 1, 3, tzinfo=UTC)
    hands, waiting = Clock(begin, begin + until), dict(moments)
    folder = config.workspace / "in"
    folder.mkdir(parents=True, exist_ok=True)
    started: list[timedelta] = []

    def sleep(seconds: float) -> None:
        hands.sleep(seconds)
        for moment in [one for one in waiting if begin + one <= hands.now()]:
            (folder / waiting.pop(moment)).write_text(str(moment))

    with pytest.raises(Stopped):
        stay(config, "0 2 * * *", "UTC", lambda: started.append(hands.now() - begin), now=hands.now, sleep=sleep)
    return started


def test_a_night_begins_once_records_have_come_and_nobody_writes_any_more(config: Config) -> None:
    config = on_records(config)
    (config.workspace / "in").mkdir(parents=True)
    (config.workspace / "in" / "old.csv").write_text("there already")
    moments = {HOUR + 10 * MINUTE * number: f"{number}.csv" for number in range(6)}  # written for an hour
    started = deliveries(config, moments, 22 * HOUR)
    assert len(started) == 1
    assert timedelta(minutes=110) < started[0] <= timedelta(minutes=145)
    started = deliveries(config, {}, 24 * HOUR)  # another process: the same records are no news, and the clock stays
    assert started == [23 * HOUR]
    changed = {10 * MINUTE: "old.csv"}
    assert len(deliveries(config, changed, 10 * HOUR)) == 1


def test_a_command_says_that_records_came_and_what_it_printed_is_not_kept(config: Config) -> None:
    answer = config.workspace / "answer"
    config = on_records(config, records_command=("cat", str(answer)))
    config.workspace.mkdir(parents=True)
    answer.write_text("2027-01-01 02:59:00 quokka")
    assert deliveries(config, {HOUR: "ignored.csv"}, 5 * HOUR) == []
    assert deliveries(config, {HOUR: "../answer"}, 5 * HOUR) != []
    answer.unlink()  # it fails: no reason to begin
    assert deliveries(config, {}, 5 * HOUR) == []
    assert b"quokka" not in (config.workspace / "nights" / "records.json").read_bytes()
    with pytest.raises(ValueError, match="records_command is asked every records_minutes"):
        NightConfig(records_command=("x",))


def test_a_records_command_is_pinned_and_without_one_the_pins_are_as_before(config: Config) -> None:
    assert set(programs(config)) == {"notify_command", "plugins", "reader"}
    assert programs(on_records(config, records_command=("x",)))["records_command"] == ["x"]
