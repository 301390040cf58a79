"""`decoct ingest` from a folder of tables to a cohort in the store, and on to MEDS."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from flows.cli.main import app
from pipeline.core.errors import ConfigError, DataError, UsageError
from pipeline.core.types import Cohort, IngestReport
from pipeline.ingest.cohort.build import build_cohort
from pipeline.ingest.drafting.first_rows import first_rows
from pipeline.ingest.mapping.load import load_mapping
from pipeline.ingest.sources.readers import read_source
from pipeline.ingest.splits import given_split
from pipeline.store import Store
from pipeline.validation.expectations import great_expectations

MAPPING = """
description = "a ward's hourly table"
unknown_variables = "drop"

[layout.stays]
file = "hourly"
stay = "stay"
subject = "person"
start = "admitted"
site = "site"
distinct = true

[[layout.events]]
file = "hourly"
key = "stay"
time = "hour"
time_unit = "hours"

[variables]
HR = { sources = ["hr"], unit = "/min", plausible = [10, 320], scale = [30, 180], normal = 80 }
Temp = { sources = ["temp"], unit = "degC", plausible = [20, 45], scale = [32, 42], normal = 37 }

[statics]
age = { unit = "years", plausible = [10, 120], scale = [15, 95], normal = 65 }

[tasks]
died = { kind = "binary", column = "died" }
"""
RUN = """
name = "ward"
workspace = "work"
[source]
kind = "tables"
folder = "source"
[cohort]
mapping = "ward.toml"
n_steps = 6
[cohort.split]
kind = "SPLIT"
MORE
[encode.raw]
kind = "identity"
[condense.centroids]
kind = "centroids"
[release]
artefact = "centroids"
licence = "CC0-1.0"
"""


def site(folder: Path, split: str = "keyed_hash", more: str = "") -> Path:
    """60 stays of 50 people at three hospitals, eight hours each, in one wide table."""
    rng = np.random.default_rng(5)
    lines = ["stay,person,site,admitted,age,died,hour,hr,temp,bed"]
    for stay in range(60):
        person = stay % 50
        head = f"{stay},p{person},h{person % 3},2020-01-{1 + stay % 28:02d} 08:00,{40 + person},{stay % 2}"
        lines += [f"{head},{hour},{60 + rng.integers(40)},{36 + rng.random():.2f},7" for hour in range(8)]
    (folder / "source").mkdir()
    (folder / "source" / "hourly.csv").write_text("\n".join(lines) + "\n")
    (folder / "ward.toml").write_text(MAPPING)
    (folder / "run.toml").write_text(RUN.replace("SPLIT", split).replace("MORE", more))
    return folder / "run.toml"


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False, standalone_mode=False)
    assert isinstance(result.stdout, str)
    return result.stdout


def cohort_of(folder: Path, text: str) -> Cohort:
    digest = json.loads(text)["made"]["ingest"][0]
    return Store(folder / "work" / "store").get(digest, Cohort)


def test_hourly_table_to_cohort_to_meds(tmp_path: Path) -> None:
    text = run("ingest", str(site(tmp_path)), "--json", "--report", "--to-meds", str(tmp_path / "meds"))
    page = Path(json.loads(text)["data_report"])
    assert "Where every row went" in page.read_text()
    assert json.loads((page.parent / "data.json").read_text())["ingest"]["stays"] == 60
    cohort = cohort_of(tmp_path, text)
    report = Store(tmp_path / "work" / "store").get(json.loads(text)["made"]["ingest"][1], IngestReport)
    # of the eight columns beside key and time, hr and temp are mapped; age, too, but as a column of the table of stays
    assert (report.rows_read, report.rows_used) == (60 * 8 * 8, 60 * 6 * 2)  # the window is half-open: hours 0 to 5
    assert report.rows_dropped["unknown variable"] == 60 * 8 * 5
    assert cohort.values.shape == (60, 6, 2)
    assert len(np.unique(cohort.subject_ids)) == 50
    assert cohort.sites is not None
    assert sorted(np.unique(cohort.sites).tolist()) == ["h0", "h1", "h2"]
    mapping = load_mapping(str(tmp_path / "meds" / "metadata" / "decoct_mapping.toml"))
    tables = read_source("tables", folder=tmp_path / "meds", mapping=mapping)
    names, n_steps = tuple(task.name for task in cohort.tasks), cohort.values.shape[1]
    told = {"step_hours": cohort.step_hours, "n_steps": n_steps, "tasks": names, "split": given_split(tables)}
    back, _ = build_cohort(tables, mapping, **told)
    np.testing.assert_array_equal(back.values, cohort.values)
    np.testing.assert_array_equal(back.labels, cohort.labels)
    np.testing.assert_array_equal(back.split, cohort.split)


def test_a_draft_goes_to_stdout_and_what_it_could_not_place_to_stderr(tmp_path: Path) -> None:
    site(tmp_path)
    draft = tomllib.loads(run("ingest", "--suggest", str(tmp_path / "source")))
    assert draft["layout"]["stays"]["distinct"]
    assert draft["codes"] == {"HR": ["hr"], "Temp": ["temp"]}
    assert any(
        "bed" in note for note in json.loads(run("ingest", "--suggest", str(tmp_path / "source"), "--json"))["notes"]
    )
    with pytest.raises(UsageError, match="--suggest takes no run"):
        run("ingest", str(tmp_path / "run.toml"), "--suggest", str(tmp_path / "source"))
    with pytest.raises(UsageError, match="name the run's TOML file"):
        run("ingest")


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    path = site(tmp_path, "site", 'held_out_sites = ["h9"]')
    with pytest.raises(DataError, match="1 of the 1 sites named in the split have no stay"):
        run("ingest", str(path))
    path.write_text(RUN.replace("SPLIT", "site").replace("MORE", ""))
    with pytest.raises(ConfigError, match="held_out_sites and kind = 'site' need each other"):
        run("ingest", str(path))
    (tmp_path / "source" / "hourly.csv").unlink()
    path.write_text(RUN.replace("SPLIT", "time").replace("MORE", ""))
    with pytest.raises(DataError, match="holds no table hourly"):
        run("ingest", str(path))


def test_the_next_cohort_is_held_to_the_sites_contract(tmp_path: Path) -> None:
    gx = great_expectations()
    path = site(tmp_path)
    told = json.loads(run("ingest", str(path), "--json", "--write-contract", str(tmp_path / "contracts")))
    assert told["site_contract"]["path"] == str(tmp_path / "contracts")
    path.write_text(path.read_text().replace("n_steps = 6", 'n_steps = 6\ncontract = "contracts"'))
    held = cohort_of(tmp_path, run("ingest", str(path), "--json"))
    assert held.provenance.config["contract"] == {"digest": told["site_contract"]["digest"]}
    context = gx.get_context(mode="file", project_root_dir=str(tmp_path / "contracts"))
    suite = context.suites.get("ward stays")
    suite.add_expectation(gx.expectations.ExpectColumnMaxToBeBetween(column="HR: max", max_value=70))
    suite.save()
    with pytest.raises(DataError, match=r"HR: max: 1 of \d+ break the rule that it keeps expect_column_max"):
        run("ingest", str(path), "--resume")
    assert list((tmp_path / "contracts" / "gx" / "uncommitted" / "data_docs").rglob("ward stays/**/cohort.html"))


def test_rows_put_aside_are_counted_and_shown_where_they_lie(tmp_path: Path) -> None:
    path = site(tmp_path)
    assert "no row aside" in run("ingest", str(path), "--quarantine")
    table = tmp_path / "source" / "hourly.csv"
    table.write_text(table.read_text().replace(",36.", ",warm "))
    mapping = tmp_path / "ward.toml"
    mapping.write_text(
        mapping.read_text().replace(
            "[layout.stays]", '[layout.criticality]\n"text instead of a number" = "quarantine"\n\n[layout.stays]'
        )
    )
    run("ingest", str(path))
    told = json.loads(run("ingest", str(path), "--quarantine", "--json"))
    assert told["rows"]["text instead of a number"] == told["kept"] > 100
    assert Path(told["path"]).parent == tmp_path / "work" / "quarantine" / "ward"
    shown = run("ingest", str(path), "--quarantine")
    assert f"{told['kept']}  text instead of a number" in shown
    assert "warm" not in shown


def test_the_first_rows_are_tried_and_those_that_fail_are_shown_on_a_terminal_alone(tmp_path: Path) -> None:
    path = site(tmp_path)
    table = tmp_path / "source" / "hourly.csv"
    table.write_text(table.read_text().replace(",36.", ",warm "))
    told = run("ingest", str(path), "--try")
    assert "text instead of a number" in told
    assert "warm" not in told  # the runner's stdout is no terminal
    assert not (tmp_path / "work").exists()
    found = first_rows(tmp_path / "source", load_mapping(str(tmp_path / "ward.toml")), 40)
    assert [(name, rows) for name, rows, _, _ in found.tables] == [("hourly", 40 * 8)]  # cells: eight columns
    shown = [line for line in found.lines(with_rows=True) if "warm" in line]
    assert len(shown) == 10
    assert all(line.startswith("row     text instead of a number: file hourly.csv, row ") for line in shown)
    assert "warm" not in repr(found)


def test_a_draft_is_tried_on_the_first_rows(tmp_path: Path) -> None:
    site(tmp_path)
    assert run("ingest", "--suggest", str(tmp_path / "source"), "--try").startswith("table   hourly: ")
