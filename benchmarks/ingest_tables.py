"""How fast a table of events becomes a cohort beside a plain pandas reader, and what memory 100 x the data takes.

    python -m benchmarks.ingest_tables [--stays 4000] [--repeats 3] [--grow 1 10 100] [--loader PYTHON]

The embedded stays are written as MEDS (four parquet shards, `subject_id, time, code, numeric_value`) and as one CSV of
the same columns, each stay with a start of its own. Both sides read the table, find the stay and the hours, drop what
lies outside the window or is implausible and make the hourly array; ours accounts for every row besides. Runs
alternate, cells are compared. `--grow` repeats the same shards under new subject ids, and reads each size in a process
of its own: peak memory, less what the libraries take and less the cohort. `--loader` is a Python that has tsdb (the
loader of the PyPOTS tools): it reads PhysioNet 2012 text from a folder, beside our reader of the same files.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import polars as pl

from benchmarks.ingest import N_STEPS, machine, ratio, spread, timed
from pipeline.ingest.cohort.build import build_cohort
from pipeline.ingest.mapping.load import SourceMapping, load_mapping
from pipeline.ingest.sources.embedded import DATA
from pipeline.ingest.sources.physionet2012 import HEADER
from pipeline.ingest.sources.readers import read_source

T = TypeVar("T")
_HOUR_US = 3_600_000_000
_MAPPING = """base = "physionet2012"
[layout.stays]
file = "stays"
stay = "subject_id"
subject = "subject_id"
start = "start"
[[layout.events]]
file = "events"
link = "subject"
key = "subject_id"
time = "time"
code = "code"
value = "numeric_value"
[tasks]
died = { kind = "binary", column = "died" }
"""
_LOADER = """
import json, sys, time
from tsdb.loading_funcs.physionet_2012 import load_physionet2012
started, cpu = time.perf_counter(), time.process_time()
load_physionet2012(sys.argv[1])
print(json.dumps([time.perf_counter() - started, time.process_time() - cpu]))
"""


def write_tables(folder: Path, n_stays: int, copies: int = 1) -> tuple[Path, Path, int]:
    """(folder of parquet, folder of CSV, rows): the first stays of set A under `copies` different ids."""
    raw = pl.read_parquet(DATA / "set-a.parquet")
    ids = raw["stay_id"].unique(maintain_order=True).head(n_stays)
    raw = raw.filter(pl.col("stay_id").is_in(ids.implode()))
    starts = pl.DataFrame({"stay_id": ids, "at": np.random.default_rng(0).integers(0, 10**9, len(ids)) * 1_000_000})
    raw = raw.join(starts, on="stay_id", maintain_order="left").select(
        pl.col("stay_id").cast(pl.Int64).alias("subject_id"),
        (pl.col("at") + pl.col("minutes").cast(pl.Int64) * 60_000_000).cast(pl.Datetime("us")).alias("time"),
        pl.col("variable").cast(pl.String).alias("code"),
        pl.col("value").cast(pl.Float32).alias("numeric_value"),
    )
    died = pl.read_csv(DATA / "Outcomes-a.txt").select(
        pl.col("RecordID").cast(pl.Int32).alias("stay_id"), pl.col("In-hospital_death").alias("died")
    )
    stays = starts.join(died, on="stay_id", maintain_order="left").select(
        pl.col("stay_id").cast(pl.Int64).alias("subject_id"),
        pl.col("at").cast(pl.Datetime("us")).alias("start"),
        "died",
    )
    shards, text = folder / "meds", folder / "csv"
    (shards / "events").mkdir(parents=True)
    text.mkdir()
    for copy in range(copies):
        moved = raw.with_columns(pl.col("subject_id") + copy * 1_000_000)
        quarters = np.array_split(np.arange(len(ids)), 4 if copies == 1 else 1)
        for number, rows in enumerate(quarters):
            here = ids.gather(rows).cast(pl.Int64) + copy * 1_000_000
            part = moved.filter(pl.col("subject_id").is_in(here.implode()))
            part.write_parquet(shards / "events" / f"{copy:04d}-{number}.parquet")
    every = pl.concat([stays.with_columns(pl.col("subject_id") + copy * 1_000_000) for copy in range(copies)])
    every.write_parquet(shards / "stays.parquet")
    if copies == 1:
        raw.with_columns(pl.col("time").dt.strftime("%Y-%m-%d %H:%M:%S")).write_csv(text / "events.csv")
        stays.with_columns(pl.col("start").dt.strftime("%Y-%m-%d %H:%M:%S")).write_csv(text / "stays.csv")
    return shards, text, raw.height * copies


def the_mapping(folder: Path) -> SourceMapping:
    (folder / "table.toml").write_text(_MAPPING)
    return load_mapping(str(folder / "table.toml"))


def with_decoct(folder: Path, mapping: SourceMapping) -> np.ndarray:
    """The road as shipped, with statics, labels and the account of rows."""
    tables = read_source("tables", folder=folder, mapping=mapping, until_hours=float(N_STEPS))
    split = np.zeros(tables.stays.height, dtype=np.int8)
    return build_cohort(tables, mapping, step_hours=1.0, n_steps=N_STEPS, split=split)[0].values


def with_pandas(folder: Path, mapping: SourceMapping) -> np.ndarray:
    """The plain reader, by chunks: series values only."""
    if (folder / "stays.csv").exists():
        stays = pd.read_csv(folder / "stays.csv", parse_dates=["start"])
        chunks: Any = pd.read_csv(folder / "events.csv", parse_dates=["time"], chunksize=500_000)
    else:
        stays = pd.read_parquet(folder / "stays.parquet")
        chunks = (pd.read_parquet(path) for path in sorted((folder / "events").glob("*.parquet")))
    stays["stay"] = np.arange(len(stays))
    codes = {variable.name: i for i, variable in enumerate(mapping.variables)}
    low = np.array([variable.plausible_low for variable in mapping.variables], dtype=np.float32)
    high = np.array([variable.plausible_high for variable in mapping.variables], dtype=np.float32)
    parts = []
    for chunk in chunks:
        rows = chunk[chunk["code"].isin(codes)].merge(stays[["subject_id", "start", "stay"]], on="subject_id")
        hours = (rows["time"] - rows["start"]).dt.total_seconds() / 3600
        rows = rows.assign(hours=hours, variable=rows["code"].map(codes))
        rows = rows[(hours >= 0) & (hours <= N_STEPS) & rows["numeric_value"].notna()].drop_duplicates(
            ["stay", "time", "code", "numeric_value"]
        )
        value, code = rows["numeric_value"].to_numpy(dtype=np.float32), rows["variable"].to_numpy()
        parts.append(rows[(value >= low[code]) & (value <= high[code])][["stay", "hours", "variable", "numeric_value"]])
    table = pd.concat(parts, ignore_index=True)
    table["step"] = np.minimum(table["hours"].to_numpy() + 1e-9, N_STEPS - 1).astype(int)
    grid = np.full((len(stays), N_STEPS, len(codes)), np.nan, dtype=np.float32)
    for kind in {variable.aggregation for variable in mapping.variables}:
        own = [i for i, variable in enumerate(mapping.variables) if variable.aggregation == kind]
        rows = table[table["variable"].isin(own)]
        cells = rows.groupby(["stay", "step", "variable"])["numeric_value"].agg(kind)
        grid[tuple(cells.index.get_level_values(i).to_numpy() for i in range(3))] = cells.to_numpy()
    return grid


def compared(read: Callable[[], np.ndarray], peer: Callable[[], np.ndarray], repeats: int, rows: int) -> dict[str, Any]:
    """Alternate the two, after one run of each that does not count."""
    values, other = read(), peer()
    ours, theirs = [], []
    for _ in range(repeats):
        ours.append(timed(read)[0])
        theirs.append(timed(peer)[0])
    difference = np.abs(values - other) / np.maximum(np.abs(other), 1e-6)
    return {
        "rows": rows,
        "decoct": per_row(ours, rows),
        "pandas": per_row(theirs, rows),
        "ratio_of_median_wall": ratio(theirs, ours, 0),
        "ratio_of_median_cpu": ratio(theirs, ours, 1),
        "same_observed_cells": bool((np.isfinite(values) == np.isfinite(other)).all()),
        "largest_relative_difference": float(np.nanmax(difference)),
    }


def per_row(times: list[tuple[float, float]], rows: int) -> dict[str, object]:
    """As `spread`, of rows."""
    return {name.replace("stays", "rows"): value for name, value in spread(times, rows).items()}


def peak_mib() -> float:
    """The most memory this process has had; what `getrusage` says is the parent's before it was begun."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))) / 1024


def grown(folder: Path, n_stays: int, copies: int) -> dict[str, Any]:
    """Read `copies` times the stays in a process of its own."""
    here = folder / f"x{copies}"
    here.mkdir()
    shards, _, rows = write_tables(here, n_stays, copies)
    command = [sys.executable, "-m", "benchmarks.ingest_tables", "--child", str(shards)]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return {"copies": copies, "rows": rows, **json.loads(told.splitlines()[-1])}


def child(folder: Path) -> dict[str, Any]:
    """Peak memory (MiB) of this process: before reading, after it, and with the cohort."""
    mapping = the_mapping(folder)
    scratch = folder / "scratch"
    scratch.mkdir()
    before = peak_mib()
    started, cpu = time.perf_counter(), time.process_time()
    tables = read_source("tables", folder=folder, mapping=mapping, until_hours=float(N_STEPS), scratch=scratch)
    read = peak_mib()
    split = np.zeros(tables.stays.height, dtype=np.int8)
    cohort, _ = build_cohort(tables, mapping, step_hours=1.0, n_steps=N_STEPS, split=split, scratch=scratch)
    size = sum(a.nbytes for a in (cohort.values, cohort.observed, cohort.static, cohort.labels)) / 2**20
    size += (cohort.stay_ids.nbytes + cohort.subject_ids.nbytes) / 2**20
    peak = peak_mib()
    return {
        "stays": len(cohort.stay_ids),
        "spilled_to_disk": tables.spilled is not None,
        "wall_s": round(time.perf_counter() - started, 2),
        "cpu_s": round(time.process_time() - cpu, 2),
        "libraries_mib": round(before, 1),
        "peak_after_reading_mib": round(read, 1),
        "peak_mib": round(peak, 1),
        "cohort_mib": round(size, 1),
        "peak_less_libraries_and_cohort_mib": round(peak - before - size, 1),
    }


def beside_loader(folder: Path, n_stays: int, python: Path) -> dict[str, Any]:
    """tsdb's `load_physionet2012` and our reader on the same folders of text."""
    outcomes = []
    for number, name in enumerate("abc"):
        raw = pl.read_parquet(DATA / f"set-{'b' if name == 'b' else 'a'}.parquet")
        ids = raw["stay_id"].unique(maintain_order=True)
        ids = ids.slice(0, n_stays // 2) if number < 2 else ids.slice(n_stays // 2, 5)  # it asks for a third set
        (folder / f"set-{name}").mkdir()
        raw = raw.filter(pl.col("stay_id").is_in(ids.implode())).with_columns(pl.col("variable").cast(pl.String))
        for (stay,), part in raw.group_by("stay_id", maintain_order=True):
            lines = [f"{m // 60:02d}:{m % 60:02d},{v},{x}\n" for _, m, v, x in part.iter_rows()]
            content = HEADER + f"00:00,RecordID,{stay}\n".encode() + "".join(lines).encode()
            (folder / f"set-{name}" / f"{stay}.txt").write_bytes(content)
        table = pl.read_csv(DATA / f"Outcomes-{'b' if name == 'b' else 'a'}.txt", infer_schema=False)
        table = table.filter(pl.col("RecordID").is_in(ids.cast(pl.String).implode()))
        outcomes.append(folder / f"Outcomes-{name}.txt")
        table.write_csv(outcomes[-1])
    mapping = load_mapping("physionet2012")
    records = [folder / f"set-{name}" for name in "abc"]

    def ours() -> np.ndarray:
        tables = read_source("physionet2012", records=records, outcomes=outcomes)
        split = np.zeros(tables.stays.height, dtype=np.int8)
        return build_cohort(tables, mapping, step_hours=1.0, n_steps=N_STEPS, split=split)[0].values

    ours()
    mine, theirs = [], []
    for _ in range(2):
        mine.append(timed(ours)[0])
        told = subprocess.run([python, "-c", _LOADER, str(folder)], check=True, capture_output=True, text=True).stdout
        wall, cpu = json.loads(told.splitlines()[-1])
        theirs.append((wall, cpu))
    return {
        "claim": "folders of PhysioNet 2012 text to hourly series, beside tsdb 0.8 (data frames, no account)",
        "n_stays": n_stays + 5,
        "decoct": spread(mine, n_stays + 5),
        "tsdb": spread(theirs, n_stays + 5),
        "ratio_of_median_wall": ratio(theirs, mine, 0),
        "ratio_of_median_cpu": ratio(theirs, mine, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stays", type=int, default=4000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--grow", type=int, nargs="*", default=[1, 10, 100])
    parser.add_argument("--grow-stays", type=int, default=400)
    parser.add_argument("--loader", type=Path)
    parser.add_argument("--loader-stays", type=int, default=1000)
    parser.add_argument("--child", type=Path)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/ingest_tables.json"))
    options = parser.parse_args()
    if options.child is not None:
        print(json.dumps(child(options.child)))
        return
    result: dict[str, Any] = {"machine": machine()}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shards, text, rows = write_tables(folder, options.stays)
        mapping = the_mapping(folder)
        for kind, here in (("meds_parquet", shards), ("csv", text)):
            result[kind] = compared(
                lambda here=here: with_decoct(here, mapping),  # type: ignore[misc]
                lambda here=here: with_pandas(here, mapping),  # type: ignore[misc]
                options.repeats,
                rows,
            )
            options.out.write_text(json.dumps(result, indent=2) + "\n")
        result["grow"] = []
        for copies in options.grow:
            result["grow"].append(grown(folder, options.grow_stays, copies))
            options.out.write_text(json.dumps(result, indent=2) + "\n")
        if options.loader is not None:
            (folder / "text").mkdir()
            result["public_loader"] = beside_loader(folder / "text", options.loader_stays, options.loader)
    options.out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
