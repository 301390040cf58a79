"""What a source's columns mean, as a TOML file read into a frozen dataclass: variables, statics, task labels.

A mapping holds public clinical constants only. It is checked when it is read, so that a misspelt key or a range the
wrong way round is found before any patient's data is opened.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, final, get_args

from pipeline.core.digest import digest_bytes
from pipeline.core.errors import ConfigError
from pipeline.core.types import Aggregation, ScoreItem, StaticVariable, Variable
from pipeline.ingest.mapping.facts import Facts, take_facts
from pipeline.ingest.mapping.label_source import OPS, TaskRule
from pipeline.ingest.mapping.layout import Layout, parse_layout
from pipeline.ingest.mapping.prediction import PredictionTimes, parse_prediction_times
from pipeline.ingest.mapping.score_items import KEY, parse_score_items, without_lacking
from pipeline.ingest.mapping.source_codes import SourceCodes, apply_codes
from pipeline.ingest.mapping.task_keys import parse_tasks
from pipeline.ingest.mapping.toml_table import TomlTable, did_you_mean

MAPPINGS: Final = Path(__file__).parents[1] / "mappings"
KEYS: Final = frozenset({
    "description", "unknown_variables", "window", "variables", "statics", "label_variables", "tasks", "layout",
    "inclusion", "codes", "mend", "optional", "prediction_times",
})  # fmt: skip
UnknownVariables = Literal["error", "drop"]
WindowKind = Literal["half_open", "closed"]


@final
@dataclass(frozen=True)
class SourceMapping:
    """The meaning of a source; `source_names` and `static_sources` lead from the source's names to ours.

    `optional` names the variables and statics that may be missing in every stay; any other such variable is an error.
    `admission` names the series whose first row, at time 0, was written on admission: it does not make a stay one with
    series. `label_variables` are read for labels and never enter the cohort's values. `layout` and `codes` say where
    the source keeps what; None = the source's reader knows.
    """

    name: str
    variables: tuple[Variable, ...]
    static_variables: tuple[StaticVariable, ...]
    tasks: tuple[TaskRule, ...]
    unknown_variables: UnknownVariables
    source_names: Mapping[str, str]
    static_sources: Mapping[str, str]
    optional: frozenset[str]
    admission: frozenset[str]
    digest: str
    label_variables: tuple[Variable, ...] = ()
    layout: Layout | None = None
    codes: SourceCodes = field(default_factory=SourceCodes)
    closed_window: bool = False  # what happens at exactly the end belongs to the input, not to what comes after it
    score_items: Mapping[str, tuple[ScoreItem, ...]] = field(default_factory=dict)  # by task; none: all late levels
    facts: Facts = field(default_factory=Facts)  # public ones, by which values are doubted
    prediction_times: PredictionTimes | None = None  # None = one, where the input of the stay's first hours ends


def load_mapping(name_or_path: str) -> SourceMapping:
    """A shipped mapping by its name, or any by the path of its TOML file.

    A mapping with `base = "physionet2012"` takes the tables that it does not have itself from that shipped mapping.

    Raises:
        ConfigError: not found, not TOML, a misspelt or missing key, or a constant that breaks a rule.
    """
    raw, path, digest = _read(name_or_path, _shipped())
    return _on_its_base(raw, path.stem, str(path), digest)


def parse_draft(text: str) -> SourceMapping:
    """A mapping from its text, which is in no file yet; as `load_mapping`."""
    return _on_its_base(tomllib.loads(text), "draft", "draft", digest_bytes(text.encode()))


def shipped_codes() -> dict[str, tuple[str, str | None]]:
    """What the shipped mappings know: code without its table's prefix -> (variable, declared unit); numbers alone."""
    found: dict[str, tuple[str, str | None]] = {}
    for path in _shipped().values():
        codes = tomllib.loads(path.read_text(encoding="utf-8")).get("codes", {})
        for variable, entries in codes.items():
            for entry in entries:
                code, unit = (entry["code"], entry["unit"]) if isinstance(entry, dict) else (str(entry), None)
                if code.rpartition("/")[2].isdecimal():
                    found[code.rpartition("/")[2]] = (variable, unit)
    return found


def _shipped() -> dict[str, Path]:
    return {path.stem: path for path in sorted(MAPPINGS.glob("*.toml"))}


def _on_its_base(raw: dict[str, Any], name: str, where: str, digest: str) -> SourceMapping:
    base, shipped = raw.pop("base", None), _shipped()
    if base is not None:
        if base not in shipped or base == name:
            raise ConfigError(f"mapping {where}: base is one of the shipped mappings {', '.join(shipped)}")
        parent, _, parent_digest = _read(base, shipped)
        parent.pop("window", None)  # how the base's own source writes its times is no matter of another's
        inherits, raw = "tasks" not in raw, {**parent, **raw}
        raw = without_lacking(raw) if inherits else raw
        digest = digest_bytes((parent_digest + digest).encode())
    return parse_mapping(raw, name, where, digest)


def _read(name_or_path: str, shipped: dict[str, Path]) -> tuple[dict[str, Any], Path, str]:
    path = shipped.get(name_or_path) or Path(name_or_path)
    try:
        content = path.read_bytes()
        raw = tomllib.loads(content.decode("utf-8"))
    except (OSError, UnicodeDecodeError):
        known = ", ".join(shipped)
        raise ConfigError(f"mapping {name_or_path} cannot be read; shipped are {known}, or give a TOML path") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"mapping {path} is not valid TOML: {error}") from None
    return raw, path, digest_bytes(content)


def parse_mapping(raw: dict[str, Any], name: str, where: str, digest: str) -> SourceMapping:
    """Check a parsed mapping; `where` names the file in errors."""
    whole = TomlTable({key: None for key in raw if key not in KEYS}, f"mapping {where}")
    whole.taken |= KEYS
    whole.done()
    layout = parse_layout(raw["layout"], raw.get("inclusion", {}), where) if "layout" in raw else None
    times = _prediction_times(raw, where, layout)
    raw, declared = apply_codes(raw, where)
    raw, facts = take_facts(raw, where)
    top = TomlTable(
        {key: raw[key] for key in raw if key not in ("layout", "inclusion", "prediction_times")}, f"mapping {where}"
    )
    top.take("description", str, "-")
    unknown = top.take("unknown_variables", str, "error")
    may_lack = top.names("optional", ("-",)) if raw.get("optional") else ()
    top.taken.add("optional")
    if unknown not in get_args(UnknownVariables):
        raise ConfigError(f"mapping {where}: unknown_variables is one of {', '.join(get_args(UnknownVariables))}")
    window = top.take("window", str, "half_open")
    if window not in get_args(WindowKind):
        raise ConfigError(f"mapping {where}: window is one of {', '.join(get_args(WindowKind))}")
    variables, sources, optional, admission = _series(top.take("variables", dict), where)
    statics, static_sources, optional_statics = _statics(top.take("statics", dict, {}), where)
    outcomes, outcome_sources, *_ = _series(top.take("label_variables", dict, {}), where, "label_variables")
    series = {variable.name for variable in (*variables, *outcomes)}
    told = top.take("tasks", dict, {})
    tasks = parse_tasks(told, where, series, of_times=times is not None)
    items = {
        task: parse_score_items(entry[KEY], f"mapping {where}: tasks.{task}", variables, statics)
        for task, entry in told.items()
        if KEY in entry
    }
    _require_series(times, series, where)
    top.done()
    if not variables:
        raise ConfigError(f"mapping {where}: [variables] is empty")
    own = {*(variable.name for variable in variables), *(static.name for static in statics)}
    strange = sorted(set(may_lack) - own)
    if strange:
        meant = did_you_mean(strange, own)
        raise ConfigError(f"mapping {where}: optional: {strange[0]} is no variable or static of the mapping{meant}")
    names = [variable.name for variable in (*variables, *outcomes)]
    if len(set(names)) < len(names):
        raise ConfigError(f"mapping {where}: a label variable has the name of a variable")
    shared = (set(sources) & set(static_sources)) | (set(outcome_sources) & {*sources, *static_sources})
    if shared:
        kind = "both a series and a static" if min(shared) not in outcome_sources else "a label variable's, too"
        raise ConfigError(f"mapping {where}: the source name {min(shared)} is {kind}")
    return SourceMapping(
        name=name,
        variables=variables,
        static_variables=statics,
        tasks=tasks,
        unknown_variables=unknown,
        source_names={**sources, **outcome_sources},
        static_sources=static_sources,
        optional=optional | optional_statics | set(may_lack),
        admission=admission,
        digest=digest,
        label_variables=outcomes,
        layout=layout,
        codes=declared,
        closed_window=window == "closed",
        score_items=items,
        prediction_times=times,
        facts=facts,
    )


def _prediction_times(raw: dict[str, Any], where: str, layout: Layout | None) -> PredictionTimes | None:
    if "prediction_times" not in raw:
        if layout is not None and any((table.look_back_hours or 0.0) > -layout.stays.start_shift_hours
                                      for table in layout.events):  # fmt: skip
            raise ConfigError(
                f"mapping {where}: look_back reaches beyond the input, which begins at the start of the stay; move it "
                "by layout.stays.start_shift_hours"
            )
        return None
    times = parse_prediction_times(raw["prediction_times"], where, tuple(OPS))
    if layout is None:
        if times.until == "end":
            raise ConfigError(f'mapping {where}: prediction_times.until = "end" needs layout.stays.end')
        return times
    by_subject = any(table.link == "subject" for table in layout.events)
    if layout.stays.end is None and (times.until == "end" or (by_subject and times.at_most_hours == math.inf)):
        why = "until the end of the stay" if times.until == "end" else "where events are linked by subject"
        raise ConfigError(f"mapping {where}: prediction_times {why} needs layout.stays.end")
    return times


def _require_series(times: PredictionTimes | None, series: set[str], where: str) -> None:
    named = {name for rule in ([] if times is None else times.not_yet) for name in rule.variables}
    unknown = sorted(named - series)
    if unknown:
        meant = did_you_mean(unknown, series)
        raise ConfigError(f"mapping {where}: prediction_times.not_yet: {unknown[0]} is no variable{meant}")


def _ranges(table: TomlTable) -> dict[str, float]:
    plausible, scale, normal = table.range("plausible"), table.range("scale"), table.number("normal")
    if not plausible[0] <= normal <= plausible[1]:
        raise ConfigError(f"{table.where}: the key normal lies outside plausible")
    return {
        "plausible_low": plausible[0],
        "plausible_high": plausible[1],
        "scale_low": scale[0],
        "scale_high": scale[1],
        "normal": normal,
    }


def _series(
    raw: dict[str, Any], where: str, kind: str = "variables"
) -> tuple[tuple[Variable, ...], dict[str, str], frozenset[str], frozenset[str]]:
    variables, sources, optional, admission = [], dict[str, str](), set[str](), set[str]()
    for name, entry in raw.items():
        table = TomlTable(entry, f"mapping {where}: {kind}.{name}")
        aggregation = table.take("aggregation", str, "mean")
        if aggregation not in get_args(Aggregation):
            raise ConfigError(f"{table.where}: aggregation is one of {', '.join(get_args(Aggregation))}")
        variables.append(Variable(name, table.take("unit", str), **_ranges(table), aggregation=aggregation))
        for source in table.names("sources", (name,)):
            if sources.setdefault(source, name) != name:
                raise ConfigError(f"{table.where}: the source name {source} is used twice")
        if table.take("optional", bool, False):
            optional.add(name)
        if table.take("admission", bool, False):
            admission.add(name)
        table.done()
    return tuple(variables), sources, frozenset(optional), frozenset(admission)


def _statics(raw: dict[str, Any], where: str) -> tuple[tuple[StaticVariable, ...], dict[str, str], frozenset[str]]:
    statics, sources, optional = [], dict[str, str](), set[str]()
    for name, entry in raw.items():
        table = TomlTable(entry, f"mapping {where}: statics.{name}")
        categories = tuple(
            (_code(code, table.where), str(label)) for code, label in table.take("categories", dict, {}).items()
        )
        if len(categories) == 1 or len(dict(categories)) < len(categories):
            raise ConfigError(f"{table.where}: categories must be two or more different codes")
        statics.append(StaticVariable(name, table.take("unit", str), **_ranges(table), categories=categories))
        source = table.take("source", str, name)
        if source in sources:
            raise ConfigError(f"{table.where}: the source name {source} is used twice")
        sources[source] = name
        if table.take("optional", bool, False):
            optional.add(name)
        table.done()
    return tuple(statics), sources, frozenset(optional)


def _code(text: str, where: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ConfigError(f"{where}: a category's code must be a whole number") from None
