"""Mappings: the shipped ones hold what they say, and every fault in one is named by its place and key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.core.errors import ConfigError
from pipeline.ingest.mapping.load import MAPPINGS, load_mapping
from pipeline.ingest.mapping.tasks import ColumnRule, EventRule

GOOD = """
[variables]
HR = { unit = "/min", plausible = [10, 300], scale = [30, 180], normal = 80, sources = ["HR", "Heart Rate"] }
[statics]
age = { source = "Age", unit = "years", plausible = [0, 120], scale = [0, 100], normal = 60 }
[tasks]
died = { kind = "binary", column = "died", missing = [-1] }
"""


def test_shipped_physionet_mapping() -> None:
    mapping = load_mapping("physionet2012")
    assert len(mapping.variables) == 37
    assert [static.name for static in mapping.static_variables] == ["age", "sex", "height", "icu_type"]
    assert [label for _, label in mapping.static_variables[3].categories] == ["CCU", "CSRU", "MICU", "SICU"]
    assert [rule.name for rule in mapping.tasks] == [
        "in_hospital_death",
        "los_gt_7d",
        "los_gt_14d",
        "sofa_ge_10",
        "saps1_ge_18",
        "death_30d",
        "death_365d",
        "length_of_stay",
        "sofa",
        "saps1",
    ]
    assert mapping.unknown_variables == "error"
    by_name = {variable.name: variable for variable in mapping.variables}
    assert (by_name["Urine"].aggregation, by_name["MechVent"].aggregation) == ("sum", "max")


@pytest.mark.parametrize("name", [path.stem for path in sorted(MAPPINGS.glob("*.toml"))])
def test_constants_of_shipped_mappings_agree(name: str) -> None:
    """The scale lies within reach of plausible values, and an unmeasured value lands inside [0, 1]."""
    mapping = load_mapping(name)
    row: Any
    for row in (*mapping.variables, *mapping.static_variables):
        assert row.plausible_low <= row.normal <= row.plausible_high, row.name
        assert row.scale_low <= row.normal <= row.scale_high, row.name
        assert row.scale_low < row.plausible_high, row.name
        assert row.scale_high > row.plausible_low, row.name


def test_base_gives_the_tables_that_a_mapping_lacks() -> None:
    base, day = load_mapping("physionet2012"), load_mapping("physionet2012_24h")
    assert day.variables == base.variables
    assert day.static_variables == base.static_variables
    assert len(day.tasks) == 9
    assert day.digest != base.digest
    assert all(rule.after_hours == 24 for rule in day.tasks if isinstance(rule, EventRule))


def test_own_mapping_by_path(tmp_path: Path) -> None:
    path = tmp_path / "ours.toml"
    path.write_text(GOOD)
    mapping = load_mapping(str(path))
    assert dict(mapping.source_names) == {"HR": "HR", "Heart Rate": "HR"}
    assert dict(mapping.static_sources) == {"Age": "age"}
    assert mapping.optional == frozenset()


FAULTS: dict[str, tuple[str, str, str]] = {
    "misspelt key": ("normal = 80", "norml = 80", "variables.HR lacks the key normal"),
    "key too many": ("normal = 80", "normal = 80, colour = 1", "variables.HR: unknown key colour"),
    "top key too many": ("[variables]", "colour = 1\n[variables]", "unknown key colour"),
    "range the wrong way": ("[30, 180]", "[180, 30]", "key scale must be two numbers, the smaller first"),
    "range of one": ("[10, 300]", "[10]", "key plausible must be two numbers"),
    "range not finite": ("[10, 300]", "[10, inf]", "key plausible must be two numbers"),
    "normal implausible": ("normal = 80", "normal = 8", "key normal lies outside plausible"),
    "normal of a wrong type": ("normal = 80", 'normal = "80"', "key normal has the wrong type"),
    "aggregation": ("normal = 80", 'normal = 80, aggregation = "median"', "aggregation is one of mean"),
    "policy": ("[variables]", 'unknown_variables = "keep"\n[variables]', "unknown_variables is one of error, drop"),
    "source twice": ('"Heart Rate"]', '"Age"]', "Age is both a series and a static"),
    "sources empty": ('["HR", "Heart Rate"]', "[]", "key sources must be a list of names"),
    "category code": ("normal = 60 }", 'normal = 60, categories = { x = "a", 2 = "b" } }', "must be a whole number"),
    "one category": ("normal = 60 }", 'normal = 60, categories = { 1 = "a" } }', "two or more"),
    "task kind": ('kind = "binary"', 'kind = "regression"', "tasks.died: kind is one of"),
    "task key": ("missing = [-1]", "mising = [-1]", "tasks.died: unknown key mising"),
    "task key lacking": ('column = "died", ', "", "tasks.died lacks the key column"),
    "task entry": ("missing = [-1]", 'missing = ["-1"]', "key missing has an entry of the wrong type"),
    "task threshold": (
        'kind = "binary", column = "died"',
        'kind = "column", column = "died", op = ">", threshold = "7"',
        "key threshold has the wrong type",
    ),
    "task op": (
        'kind = "binary", column = "died"',
        'kind = "column", column = "died", op = "=>", threshold = 7',
        "op is one of",
    ),
    "task variable": (
        'kind = "binary", column = "died", missing = [-1]',
        'kind = "event", variables = ["K"], op = ">", threshold = 5, after_hours = 24, to_hours = 48',
        "K is no variable of the mapping",
    ),
    "task window": (
        'kind = "binary", column = "died", missing = [-1]',
        'kind = "event", variables = ["HR"], op = ">", threshold = 5, after_hours = 48, to_hours = 24',
        "after_hours must be smaller",
    ),
    "base": ("[variables]", 'base = "nowhere"\n[variables]', "base is one of the shipped mappings"),
    "no variables": (GOOD[: GOOD.index("[statics]")], "[variables]\n", "[variables] is empty"),
    "not TOML": ("[variables]", "[variables", "not valid TOML"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults_are_named(name: str, tmp_path: Path) -> None:
    old, new, expected = FAULTS[name]
    assert old in GOOD
    path = tmp_path / "ours.toml"
    path.write_text(GOOD.replace(old, new, 1))
    with pytest.raises(ConfigError) as caught:
        load_mapping(str(path))
    assert expected in str(caught.value)
    assert str(path) in str(caught.value)
    assert caught.value.exit_code == 10


def test_mapping_that_does_not_exist() -> None:
    with pytest.raises(ConfigError, match="mapping mimic cannot be read; shipped are eicu, mimic_iv, omop"):
        load_mapping("mimic")


def test_rules_refuse_an_operator_they_do_not_know() -> None:
    bad: Any = "!="
    with pytest.raises(ConfigError, match="op is one of"):
        ColumnRule("t", "c", bad, 1.0)
