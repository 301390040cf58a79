"""Where a source keeps its stays and its events: the `[layout]` and `[inclusion]` tables of a mapping, checked.

A layout names files and columns; it holds no code. One engine (`event_tables`) reads every source that has one.
"""

from __future__ import annotations

import codecs
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, final, get_args
from zoneinfo import ZoneInfo

from pipeline.core.errors import ConfigError
from pipeline.ingest.mapping.inclusion import Inclusion, parse_inclusion
from pipeline.ingest.mapping.prediction import duration
from pipeline.ingest.mapping.toml_table import TomlTable

ROW_NUMBER: Final = "(row)"
"""In place of a stay column: every row of the table of stays is a stay, numbered within its subject by start."""

CRITICAL_REASONS: Final = (
    "malformed line",
    "stay or subject missing",
    "no such stay or subject",
    "outside every stay",
    "after the end of the stay",
    "another subject than the stay's",
    "time missing",
    "unreadable time",
    "time not finite",
    "text instead of a number",
    "a limit (< or >) instead of a number",
    "decimal comma",
    "ambiguous thousands",
    "value not finite",
    "unit without a conversion",
    "unknown unit",
    "implausible",
    "no readable start",
    "no readable end",
    "ends before it starts",
)
"""What `[layout.criticality]` may send to the quarantine, or stop at: rows (and stays) that something is wrong with."""

TimeUnit = Literal["datetime", "minutes", "hours", "days"]
Link = Literal["stay", "subject"]
Dates = Literal["day_first", "month_first"]
Criticality = Literal["drop", "quarantine", "stop"]
Conflicts = Literal["keep", "first", "last", "mean", "drop"]
DerivedKind = Literal["number", "codes", "present", "age", "hours_between", "days_between"]

_DERIVED_KEYS: Final[Mapping[str, tuple[str, ...]]] = {
    "number": ("column",),
    "codes": ("column",),
    "present": ("column",),
    "age": (),
    "hours_between": ("from", "to"),
    "days_between": ("from", "to"),
}


@final
@dataclass(frozen=True)
class Join:
    """Columns of another table, one row per key: `columns` leads from our name to the file's.

    `where` keeps the rows whose column is one of the texts, as that of the stays does.
    """

    file: str
    on: tuple[str, ...]
    columns: Mapping[str, str]
    where: Mapping[str, tuple[str, ...]]
    encoding: str


@final
@dataclass(frozen=True)
class Derived:
    """A numeric column of the stays made by a fixed public rule (`derive.py`)."""

    name: str
    kind: DerivedKind
    columns: tuple[str, ...]
    codes: Mapping[str, float]
    otherwise: float | None


@final
@dataclass(frozen=True)
class StaysLayout:
    """The table with one row per stay; without a `file` the stays are those that events name.

    `start` is the time that a stay's hours are counted from, moved by `start_shift_hours`. `subject_key` is the column
    that events of link "subject" refer to, where that is not `subject`. `where` keeps the rows whose column is one of
    the texts (a trailing * matches any ending). An id of several columns has their names joined (`id_columns`).
    """

    file: str | None
    stay: str
    subject: str | None
    subject_key: str | None
    start: str | None
    start_shift_hours: float
    end: str | None
    site: str | None
    unit: str | None
    split: str | None
    where: Mapping[str, tuple[str, ...]]
    distinct: bool  # the file has many rows per stay, all alike in the columns that are read
    encoding: str
    joins: tuple[Join, ...]
    derived: tuple[Derived, ...]


@final
@dataclass(frozen=True)
class EventsLayout:
    """One table of events. With `code`: a row per event. Without: a column per variable, a cell per event.

    `key` holds the stay, or with link "subject" the subject: such an event belongs to every stay of the subject in
    whose window it lies. After a stay's end nothing belongs to it. A source name in `[codes]` is `prefix` + the code or
    column.
    """

    file: str
    prefix: str
    link: Link
    key: str
    time: str
    clock: str | None  # a second column with the time of day, where `time` holds the date alone
    date: str | None  # a column with the date, for rows whose `time` is empty: the last second of the day
    available: str | None  # a column that says when a row was known; `time` says when it was taken
    time_unit: TimeUnit
    shift_hours: float
    look_back_hours: float | None  # how long before the stay its rows may be; None = the input begins with the stay
    code: str | None
    value: str  # "" with `presence`: a row says that its code is there, and counts as 1
    unit: str | None
    operator: str | None  # a column that says "<" or ">" of limits, in the files that have it
    presence: bool
    optional: bool  # a source without the table is read without it, and the report says so
    encoding: str


@final
@dataclass(frozen=True)
class Layout:
    """Everything about files; `timezone` is that of local times without an offset, None = they need none."""

    stays: StaysLayout
    events: tuple[EventsLayout, ...]
    inclusion: Inclusion
    timezone: str | None
    encoding: str  # of text files without a mark that says theirs, in tables that say none of their own
    decimal_comma: bool
    no_thousands: bool  # no number carries a mark of thousands: with a decimal comma "6,780" is 6.78
    dates: Dates | None  # the order of 01/02/2024; None = such dates are not read
    take_limits: bool  # "<0.1" is read as 0.1; otherwise such rows are dropped and counted
    drop_duplicates: bool
    conflicts: Conflicts
    missing_codes: tuple[float, ...]
    criticality: Mapping[str, Criticality]  # by reason; what is not named is dropped and counted


def parse_layout(raw: Any, inclusion: Any, where: str) -> Layout:
    """Check the tables; `where` names the mapping in errors.

    Raises:
        ConfigError: a misspelt or missing key, or a value out of its list.
    """
    top = TomlTable(raw, f"mapping {where}: layout")
    encoding = _encoding(top, "utf-8")
    stays = _stays(top.take("stays", dict, {}), where, encoding)
    rows = top.take("events", list)
    events = tuple(_events(row, f"mapping {where}: layout.events {i}", encoding) for i, row in enumerate(rows, start=1))
    layout = Layout(
        stays=stays,
        events=events,
        inclusion=parse_inclusion(inclusion, where),
        timezone=_zone(top),
        encoding=encoding,
        decimal_comma=top.take("decimal_comma", bool, False),
        no_thousands=top.take("no_thousands", bool, False),
        dates=_one_of(top, "dates", ("", *get_args(Dates)), "") or None,
        take_limits=top.take("take_limits", bool, False),
        drop_duplicates=top.take("drop_duplicates", bool, True),
        conflicts=_one_of(top, "conflicts", get_args(Conflicts), "keep"),
        missing_codes=tuple(float(code) for code in top.take("missing_codes", list, [])),
        criticality=_criticality(top.take("criticality", dict, {}), f"mapping {where}: layout.criticality"),
    )
    top.take("units", dict, {})  # `source_codes` reads it
    top.done()
    if not events:
        raise ConfigError(f"mapping {where}: layout.events is empty")
    if stays.file is None and (stays.start or any(table.link == "subject" for table in events)):
        raise ConfigError(f"mapping {where}: layout.stays needs a file to know when stays begin")
    for table in events:
        if table.time_unit == "datetime" and stays.start is None:
            raise ConfigError(f"mapping {where}: events with dates need layout.stays.start")
        if table.link == "subject" and (stays.start is None or (stays.subject_key or stays.subject) is None):
            raise ConfigError(f"mapping {where}: events linked by subject need layout.stays.subject and start")
    return layout


def _criticality(raw: Mapping[str, Any], where: str) -> dict[str, Criticality]:
    """The table's keys are the reasons as reports write them; `event_rows` and its like own the words."""
    table = TomlTable(raw, where)
    for reason in raw:
        if reason not in CRITICAL_REASONS:
            raise ConfigError(f"{where}: {reason!r} is no reason; known are {', '.join(CRITICAL_REASONS)}")
    return {reason: _one_of(table, reason, get_args(Criticality), None) for reason in raw}


def _stays(raw: Any, where: str, encoding: str) -> StaysLayout:
    table = TomlTable(raw, f"mapping {where}: layout.stays")
    joins = tuple(_join(row, f"{table.where}.join", encoding) for row in table.take("join", list, []))
    derived = tuple(
        _derived(name, row, f"{table.where}.derived.{name}") for name, row in table.take("derived", dict, {}).items()
    )
    stays = StaysLayout(
        file=table.take("file", str, "") or None,
        stay=table.columns("stay", "stay_id"),
        subject=table.columns("subject", "") or None,
        subject_key=table.columns("subject_key", "") or None,
        start=table.take("start", str, "") or None,
        start_shift_hours=float(table.take("start_shift_hours", (int, float), 0.0)),
        end=table.take("end", str, "") or None,
        site=table.take("site", str, "") or None,
        unit=table.take("unit", str, "") or None,
        split=table.take("split", str, "") or None,
        where=_where(table),
        distinct=table.take("distinct", bool, False),
        encoding=_encoding(table, encoding),
        joins=joins,
        derived=derived,
    )
    table.done()
    if stays.stay == ROW_NUMBER and (stays.subject is None or stays.start is None):
        raise ConfigError(f'{table.where}: stay = "{ROW_NUMBER}" needs subject and start')
    return stays


def _where(table: TomlTable) -> dict[str, tuple[str, ...]]:
    selected = table.take("where", dict, {})
    kept = {name: tuple(map(str, texts)) for name, texts in selected.items() if isinstance(texts, list)}
    if len(kept) < len(selected):
        raise ConfigError(f"{table.where}.where: every column needs a list of the texts to keep")
    return kept


def _join(raw: Any, where: str, encoding: str) -> Join:
    table = TomlTable(raw, where)
    columns = table.take("columns", dict)
    named = {str(new): str(old) for new, old in columns.items()}
    join = Join(table.take("file", str), table.names("on", ()), named, _where(table), _encoding(table, encoding))
    table.done()
    return join


def _derived(name: str, raw: Any, where: str) -> Derived:
    table = TomlTable(raw, where)
    kind = _one_of(table, "kind", get_args(DerivedKind), None)
    columns = [table.take(key, str) for key in _DERIVED_KEYS[kind]]
    if kind == "age":
        born = table.take("born", str, "")
        columns = [born] if born else [table.take("anchor_age", str), table.take("anchor_year", str)]
    codes = {str(key): float(code) for key, code in (table.take("codes", dict) if kind == "codes" else {}).items()}
    otherwise = table.take("otherwise", (int, float), float("nan"))
    table.done()
    return Derived(name, kind, tuple(columns), codes, None if otherwise != otherwise else float(otherwise))


def _events(raw: Any, where: str, encoding: str) -> EventsLayout:
    table = TomlTable(raw, where)
    code = table.take("code", str, "") or None
    presence = table.take("presence", bool, False)
    if presence and (code is None or "value" in table.raw or "unit" in table.raw):
        raise ConfigError(f"{where}: presence = true goes with a code, and with neither value nor unit")
    if code and not presence and "value" not in table.raw:
        raise ConfigError(f"{where} lacks the key value; codes that have none count as 1 with presence = true")
    events = EventsLayout(
        file=table.take("file", str, ""),
        prefix=table.take("prefix", str, ""),
        link=_one_of(table, "link", get_args(Link), "stay"),
        key=table.columns("key"),
        time=table.take("time", str),
        clock=table.take("clock", str, "") or None,
        date=table.take("date", str, "") or None,
        available=table.take("available", str, "") or None,
        time_unit=_one_of(table, "time_unit", get_args(TimeUnit), "datetime"),
        shift_hours=float(table.take("shift_hours", (int, float), 0.0)),
        look_back_hours=duration(table, "look_back") if "look_back" in table.raw else None,
        code=code,
        value=table.take("value", str) if code and not presence else "",
        unit=table.take("unit", str, "") or None,
        operator=table.take("operator", str, "") or None,
        presence=presence,
        optional=table.take("optional", bool, False),
        encoding=_encoding(table, encoding),
    )
    table.done()
    for key, column in (("clock", events.clock), ("date", events.date)):
        if column and events.time_unit != "datetime":
            raise ConfigError(f"{where}: the key {key} goes with dates; leave out time_unit")
    if events.clock and events.date:
        raise ConfigError(f"{where}: clock and date say the same thing; leave one out")
    if code is None and events.unit:
        raise ConfigError(f"{where}: a table with a column per variable has no column of units; name them in [codes]")
    return events


def _one_of(table: TomlTable, key: str, options: tuple[str, ...], default: str | None) -> Any:
    value = table.take(key, str, default)
    if value not in options:
        raise ConfigError(f"{table.where}: the key {key} is one of {', '.join(options)}")
    return value


def _encoding(table: TomlTable, default: str) -> str:
    name: str = table.take("encoding", str, default)
    try:
        return codecs.lookup(name).name
    except LookupError:
        raise ConfigError(f"{table.where}: the key encoding is no encoding such as utf-8, cp1252 or utf-16") from None


def _zone(table: TomlTable) -> str | None:
    name: str = table.take("timezone", str, "")
    try:
        return ZoneInfo(name).key if name else None
    except (ValueError, OSError, KeyError):
        raise ConfigError(f"{table.where}: the key timezone is no IANA name such as Europe/Berlin") from None
