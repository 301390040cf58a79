"""A mapping's faults are told before any row is read, all at once, with what was probably meant."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.core.errors import ConfigError
from pipeline.core.types import Split
from pipeline.ingest.checked import check_mapping
from pipeline.ingest.splits import with_tuning

GOOD = """
[variables]
HR = { unit = "/min", plausible = [10, 320], scale = [30, 180], normal = 80 }
[codes]
HR = ["pulse"]
[layout.stays]
file = "stays"
stay = "case"
start = "admitted"
[[layout.events]]
file = "vitals"
key = "case"
time = "taken"
code = "what"
value = "value"
[tasks]
died = { kind = "binary", column = "died" }
late = { kind = "event", variables = ["HR"], op = ">", threshold = 100, after_hours = 24, to_hours = 48 }
"""


def check(folder: Path, text: str, tasks: tuple[str, ...] = (), hours: float = 24.0) -> None:
    (folder / "src").mkdir(exist_ok=True)
    (folder / "src" / "stays.csv").write_text("case,admitted,died\n")
    (folder / "src" / "vitals.csv").write_text("case,taken,what,value\n")
    (folder / "m.toml").write_text(text)
    check_mapping(str(folder / "m.toml"), kind="tables", folder=folder / "src", tasks=tasks, horizon_hours=hours)


def test_what_is_right_passes(tmp_path: Path) -> None:
    check(tmp_path, GOOD)
    check_mapping("physionet2012", kind="embedded", folder=None, tasks=(), horizon_hours=48.0)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("[layout.stays]", "[layot]\n[layout.stays]", "unknown key layot; did you mean layout?"),
        (
            "[layout.stays]",
            "[layout]\ndecimal_coma = true\n[layout.stays]",
            "unknown key decimal_coma; did you mean",
        ),
        ("start = ", "strat = ", "unknown key strat; did you mean start"),
        ('key = "case"', 'key = "caes"', "vitals.csv lacks the column caes; did you mean case?"),
        ('"admitted"', '"admited"', "stays.csv lacks the column admited; did you mean admitted?"),
        ('"vitals"', '"vital"', "src holds no table vital "),
        ('HR = ["pulse"]', 'hr = ["pulse"]', "codes.hr is no variable of the mapping or its base; did you mean HR?"),
        ('variables = ["HR"]', 'variables = ["hr"]', "hr is no variable of the mapping; did you mean HR?"),
    ],
)
def test_a_fault_is_named_with_what_was_meant(tmp_path: Path, old: str, new: str, told: str) -> None:
    assert old in GOOD
    with pytest.raises(ConfigError) as found:
        check(tmp_path, GOOD.replace(old, new, 1))
    assert told in str(found.value)


def test_tasks_and_windows(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"has no task dead; did you mean died\?"):
        check(tmp_path, GOOD, ("dead",))
    with pytest.raises(ConfigError, match="task late: its label window begins before the input ends"):
        check(tmp_path, GOOD, ("late",), 36.0)


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    text = GOOD.replace("[codes]", "[nonsense]\n[codes]").replace("[layout.stays]", "[layout]\nfoo = 1\n[layout.stays]")
    with pytest.raises(ConfigError, match=r"unknown key nonsense; .*layout: unknown key foo; .*has no task dead"):
        check(tmp_path, text, ("dead",))
    both = GOOD.replace('"case"', '"caes"').replace('"vitals"', '"vital"')
    with pytest.raises(ConfigError, match=r"stays\.csv lacks the column caes.*; src holds no table vital"):
        check(tmp_path, both)


def test_tuning_is_taken_from_the_training_sites() -> None:
    part = np.array([Split.TRAIN, Split.TRAIN, Split.HELD_OUT], np.int8)
    hashed = np.array([Split.TUNING, Split.TRAIN, Split.TUNING], np.int8)
    assert with_tuning(part, hashed).tolist() == [Split.TUNING, Split.TRAIN, Split.HELD_OUT]
