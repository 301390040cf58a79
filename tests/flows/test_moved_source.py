"""Where a source, its mapping and the contract lie is no part of what is made: the same digests in any folder."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from flows.stages.ingest import ingest
from flows.workspace.job import Job, new_job
from pipeline.core.config import parse_config
from pipeline.core.types import Cohort, IngestReport
from pipeline.ingest.sources.embedded import DATA
from pipeline.store import Made
from pipeline.validation.site_contract import draft_contract, write_contract

VARIABLES = """
[variables]
HR = { sources = ["HR"], unit = "/min", plausible = [10, 320], scale = [30, 180], normal = 80 }
[tasks]
died = { kind = "binary", column = "died", description = "death" }
"""
LONG = 'description = "test"\n' + VARIABLES
LAYOUT = """
description = "a ward's hourly table"
unknown_variables = "drop"
[layout.stays]
file = "hourly"
stay = "stay"
subject = "person"
start = "admitted"
distinct = true
[[layout.events]]
file = "hourly"
key = "stay"
time = "hour"
time_unit = "hours"
"""
STAYS = 40


def long_table(site: Path) -> dict[str, Any]:
    events, stays = [["stay_id", "hours", "variable", "value"]], [["stay_id", "subject_id", "died", "split"]]
    for stay in range(STAYS):
        events.append([f"s{stay}", "1.5", "HR", str(60 + stay)])
        stays.append([f"s{stay}", f"p{stay}", str(int(stay % 3 == 0)), ("train", "tuning", "held_out")[stay % 3]])
    write(site / "in" / "events.csv", events)
    write(site / "in" / "stays.csv", stays)
    (site / "ours.toml").write_text(LONG)
    columns = {"subject_column": "subject_id", "split_column": "split"}
    return {"kind": "long_table", "events": "in/events.csv", "stays": "in/stays.csv", **columns}


def tables(site: Path) -> dict[str, Any]:
    rows = [["stay", "person", "admitted", "hour", "HR", "died"]]
    for stay in range(STAYS):
        at = f"2020-01-{1 + stay % 28:02d}T00:00:00"
        rows += [[f"s{stay}", f"p{stay}", at, str(hour), str(60 + stay), str(stay % 2)] for hour in (0, 1)]
    write(site / "in" / "hourly.csv", rows)
    (site / "ours.toml").write_text(LAYOUT + VARIABLES)
    return {"kind": "tables", "folder": "in"}


def physionet2012(site: Path) -> dict[str, Any]:
    records = site / "in" / "records"
    records.mkdir(parents=True)
    table = pl.read_parquet(DATA / "set-a.parquet").with_columns(pl.col("variable").cast(pl.String))
    wanted = table["stay_id"].unique(maintain_order=True).head(STAYS).to_list()
    for stay in wanted:
        rows = table.filter(pl.col("stay_id") == stay).drop("stay_id").iter_rows()
        lines = [f"{minute // 60:02d}:{minute % 60:02d},{name},{value}" for minute, name, value in rows]
        (records / f"{stay}.txt").write_text("Time,Parameter,Value\n" + "\n".join(lines) + "\n")
    head, *outcomes = (DATA / "Outcomes-a.txt").read_text().splitlines()
    kept = [row for row in outcomes if row.split(",")[0] in {str(stay) for stay in wanted}]
    (site / "in" / "outcomes.txt").write_text("\n".join([head, *kept]) + "\n")
    shutil.copy(DATA.parents[1] / "mappings" / "physionet2012.toml", site / "ours.toml")
    return {"kind": "physionet2012", "records": ["in/records"], "outcomes": ["in/outcomes.txt"]}


def write(path: Path, rows: list[list[str]]) -> None:
    path.parent.mkdir(exist_ok=True)
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows(rows)


def contract_from(job: Job, made: Made[Cohort], folder: Path) -> None:
    cohort, report = job.only(made, Cohort), job.only(made, IngestReport, 1)
    write_contract(folder, "ward", draft_contract(cohort, report))


def job_at(site: Path, source: dict[str, Any], *, resume: bool, contract: bool = True) -> Job:
    raw: dict[str, Any] = {
        "name": "ward",
        "workspace": "work",
        "source": source,
        "cohort": {"mapping": "ours.toml", "n_steps": 4, **({"contract": "rules"} if contract else {})},
        "encode": {"raw": {"kind": "identity"}},
        "condense": {"c": {"kind": "centroids"}},
        "release": {"artefact": "c", "licence": "CC0-1.0"},
    }
    return new_job(parse_config(raw, "the test's configuration", site), resume=resume)


@pytest.mark.parametrize("kind", [long_table, tables, physionet2012], ids=lambda kind: kind.__name__)
def test_a_moved_source_gives_the_digests_of_the_old_place(kind: Any, tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there" / "deeper"
    here.mkdir()
    source = kind(here)
    first = job_at(here, source, resume=False, contract=False)
    contract_from(first, ingest(first), here / "rules")
    made = ingest(job_at(here, source, resume=False))
    shutil.copytree(here, there)
    found = ingest(job_at(there, source, resume=True))
    assert found.reused
    assert found.digests == made.digests
    anew = ingest(job_at(there, source, resume=False))
    assert not anew.reused
    assert anew.digests == made.digests
    told = job_at(there, source, resume=True).store.describe(made.first)["meta"]["provenance"]
    assert str(tmp_path) not in str(told)
