"""The tutorial's files, read by the tutorial's mapping, give what the tutorial says."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import numpy as np
import pytest

from pipeline.ingest.cohort.build import build_cohort
from pipeline.ingest.drafting.suggest import suggest
from pipeline.ingest.mapping.load import SourceMapping, load_mapping
from pipeline.ingest.sources.readers import read_source

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "read-tables.md"
_BLOCK = re.compile(r"^```\w+ file=(\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def unpack(folder: Path) -> None:
    found = _BLOCK.findall(PAGE.read_text(encoding="utf-8"))
    assert [name for name, _ in found] == ["exports/adt.csv", "exports/monitor.csv", "exports/lab.csv", "ward.toml"]
    for name, text in found:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")


def test_the_tutorial_is_true(tmp_path: Path) -> None:
    unpack(tmp_path)
    mapping = load_mapping(str(tmp_path / "ward.toml"))
    tables = read_source("tables", folder=tmp_path / "exports", mapping=mapping, until_hours=24.0)
    split = np.zeros(tables.stays.height, dtype=np.int8)
    loose = SourceMapping(**{**vars(mapping), "optional": frozenset(v.name for v in mapping.variables)})
    cohort, report = build_cohort(tables, loose, step_hours=1.0, n_steps=24, split=split)
    names = [variable.name for variable in cohort.variables]
    assert names == ["Creatinine", "HR", "Lactate", "MAP", "Temp"]
    assert cohort.stay_ids.tolist() == ["C1", "C2", "C3"]
    assert cohort.values[0, 2, 0] == pytest.approx(1.10, abs=0.005)
    assert cohort.values[2, 2, 0] == pytest.approx(1.2)  # a decimal comma
    assert cohort.values[0, 0, 4] == pytest.approx(37.0, abs=1e-4)
    # the clock went forward at 2:00 on 26 March: 01:30 is 5.5 hours after 20:00, and 03:30 is 6.5
    assert cohort.values[1, 5, 1] == 110
    assert cohort.values[1, 6, 1] == 104
    assert cohort.static[:, 0].tolist() == [73, 62, 73]
    assert dict(report.rows_dropped) == {
        "unknown variable": 1,
        "value missing": 2 + 1 + 1,
        "stay excluded": 3,
        "a limit (< or >) instead of a number": 1,
    }
    assert report.rows_read == 6 * 3 + 5


def test_a_new_source_takes_few_lines(tmp_path: Path) -> None:
    unpack(tmp_path)
    text = (tmp_path / "ward.toml").read_text(encoding="utf-8")
    assert len([line for line in text.splitlines() if line.strip()]) <= 40


def test_the_draft_of_the_tutorial_finds_what_has_a_known_name(tmp_path: Path) -> None:
    unpack(tmp_path)
    found = suggest(tmp_path / "exports")
    draft = tomllib.loads(found.toml)
    assert draft["layout"]["stays"]["file"] == "adt"
    assert {table["file"]: table["link"] for table in draft["layout"]["events"]} == {
        "lab": "subject",
        "monitor": "stay",
    }
    assert draft["codes"] == {
        "HR": ["monitor/pulse"],
        "MAP": ["monitor/map"],
        "Temp": [{"code": "monitor/temp_f", "unit": "degF"}],
        "Creatinine": ["lab/CREA"],
        "Lactate": ["lab/LACT"],
    }
    assert draft["layout"]["decimal_comma"]
    assert {*draft["statics"], *draft["tasks"]} == {"age", "sex", "died"}
    assert any(note.startswith("1 codes have fewer than 10 rows") for note in found.notes)


def test_reasons_on_the_page_are_those_of_the_code() -> None:
    from pipeline.ingest import source_tables as tables
    from pipeline.ingest.engine import event_rows, event_tables, event_times, event_units, event_values, repeats

    page = PAGE.read_text(encoding="utf-8")
    modules = (event_rows, event_tables, event_times, event_units, event_values, repeats)
    reasons = {
        value
        for module in modules
        for name, value in vars(module).items()
        if name.isupper() and isinstance(value, str) and not name.startswith("_") and " " in value
    }
    assert tables.OUTSIDE_WINDOW in reasons
    for reason in reasons - {"(unnamed)", "(other text)"}:
        assert f"`{reason}`" in page, reason
