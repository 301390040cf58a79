"""How fast raw text becomes an hourly cohort, against a plain pandas reader in the same run, cell by cell.

    python benchmarks/ingest.py [--stays 8000] [--repeats 3] [--out benchmarks/results/ingest.json]

Both sides read the same tar.gz archives (upstream's text format, written from the embedded stays into a temporary
folder) and make the same hourly array under the same plausible ranges and aggregations. The pandas side is what one
writes first: tarfile, one `read_csv` per file, one `concat`, one `groupby` per aggregation. Runs alternate; the claim
is the ratio of the medians, of wall and of CPU time (the latter holds on a busy machine, too).
"""

from __future__ import annotations

import argparse
import functools
import io
import json
import os
import platform
import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd
import polars as pl

from pipeline.core.types import Cohort
from pipeline.ingest.cohort.build import build_cohort
from pipeline.ingest.cohort.scaling import prepare
from pipeline.ingest.mapping.load import SourceMapping, load_mapping
from pipeline.ingest.sources.embedded import DATA
from pipeline.ingest.sources.physionet2012 import HEADER
from pipeline.ingest.sources.readers import read_source

N_STEPS = 48
T = TypeVar("T")


def write_archives(folder: Path, n_stays: int) -> tuple[list[Path], list[Path], int]:
    """The first stays of A and B, half each, as upstream's text in one tar.gz per set, with their outcomes."""
    records, outcomes, size = [], [], 0
    for name in "ab":
        raw = pl.read_parquet(DATA / f"set-{name}.parquet")
        ids = raw["stay_id"].unique(maintain_order=True).head(n_stays // 2)
        lines = raw.filter(pl.col("stay_id").is_in(ids.implode())).select(
            "stay_id",
            pl.format(
                "{}:{},{},{}\n",
                (pl.col("minutes") // 60).cast(pl.String).str.zfill(2),
                (pl.col("minutes") % 60).cast(pl.String).str.zfill(2),
                pl.col("variable").cast(pl.String),
                pl.col("value").cast(pl.String),
            ).alias("line"),
        )
        texts = lines.group_by("stay_id", maintain_order=True).agg(pl.col("line").str.join(""))
        records.append(folder / f"set-{name}.tar.gz")
        with tarfile.open(records[-1], "w:gz") as tar:
            for stay, text in texts.iter_rows():
                content = HEADER + f"00:00,RecordID,{stay}\n{text}".encode()
                size += len(content)
                member = tarfile.TarInfo(f"set-{name}/{stay}.txt")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
        outcomes.append(folder / f"Outcomes-{name}.txt")
        rows = (DATA / outcomes[-1].name).read_text().splitlines(keepends=True)
        outcomes[-1].write_text("".join(rows[: n_stays // 2 + 1]))
    return records, outcomes, size


def with_decoct(records: list[Path], outcomes: list[Path], mapping: SourceMapping) -> np.ndarray:
    """The road as shipped, with outcomes, statics, labels and the account of rows, which the peer does not make."""
    tables = read_source("physionet2012", records=records, outcomes=outcomes)
    split = np.zeros(tables.stays.height, dtype=np.int8)
    return build_cohort(tables, mapping, step_hours=1.0, n_steps=N_STEPS, split=split)[0].values


def with_pandas(records: list[Path], mapping: SourceMapping) -> np.ndarray:
    """The plain reader: series values only."""
    frames, n_stays = [], 0
    for path in records:
        with tarfile.open(path, "r:gz") as tar:
            for member in tar:
                content = tar.extractfile(member)
                if content is not None:
                    frames.append(pd.read_csv(content).assign(stay=n_stays))
                    n_stays += 1
    table = pd.concat(frames, ignore_index=True)
    names = [variable.name for variable in mapping.variables]
    table = table[table["Parameter"].isin(names) & (table["Value"] != -1)]
    clock = table["Time"].str.split(":", expand=True).astype(int)
    table["step"] = (clock[0] + clock[1] / 60).astype(int).clip(upper=N_STEPS - 1)
    table["variable"] = table["Parameter"].map({name: i for i, name in enumerate(names)})
    low = np.array([variable.plausible_low for variable in mapping.variables])
    high = np.array([variable.plausible_high for variable in mapping.variables])
    code = table["variable"].to_numpy()
    table = table[(table["Value"] >= low[code]) & (table["Value"] <= high[code])]
    grid = np.full((n_stays, N_STEPS, len(names)), np.nan, dtype=np.float32)
    for kind in {variable.aggregation for variable in mapping.variables}:
        codes = [i for i, variable in enumerate(mapping.variables) if variable.aggregation == kind]
        rows = table[table["variable"].isin(codes)]
        cells = rows.groupby(["stay", "step", "variable"])["Value"].agg(kind)
        grid[tuple(cells.index.get_level_values(i).to_numpy() for i in range(3))] = cells.to_numpy()
    return grid


Timing = tuple[float, float]


def timed(run: Callable[[], T]) -> tuple[Timing, T]:
    """(wall seconds, CPU seconds over all threads), and what `run` returns."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = run()
    return (time.perf_counter() - wall, time.process_time() - cpu), result


def spread(times: list[Timing], n_stays: int) -> dict[str, object]:
    wall, cpu = (statistics.median(column) for column in zip(*times, strict=True))
    return {
        "wall_s": [round(item, 3) for item, _ in times],
        "cpu_s": [round(item, 3) for _, item in times],
        "median_wall_s": round(wall, 3),
        "median_cpu_s": round(cpu, 3),
        "stays_per_wall_s": round(n_stays / wall, 1),
        "stays_per_cpu_s": round(n_stays / cpu, 1),
    }


def measure(n_stays: int, repeats: int) -> dict[str, object]:
    """Alternate the two readers on the same archives, then time the embedded road alone."""
    mapping = load_mapping("physionet2012")
    ours: list[Timing] = []
    theirs: list[Timing] = []
    with tempfile.TemporaryDirectory() as name:
        records, outcomes, size = write_archives(Path(name), n_stays)
        for _ in range(repeats):
            timing, values = timed(lambda: with_decoct(records, outcomes, mapping))
            ours.append(timing)
            timing, peer = timed(lambda: with_pandas(records, mapping))
            theirs.append(timing)
    embedded: list[Timing] = []
    prepared: list[Timing] = []
    for _ in range(repeats):
        timing, cohort = timed(lambda: embedded_cohort(mapping))
        embedded.append(timing)
        prepared.append(timed(functools.partial(prepare, cohort))[0])
    return {
        "claim": "raw PhysioNet 2012 text (tar.gz) to an hourly cohort: stays per second against a plain pandas reader",
        "n_stays": n_stays,
        "text_megabytes": round(size / 1e6, 1),
        "repeats": repeats,
        "decoct": spread(ours, n_stays),
        "pandas": spread(theirs, n_stays),
        "ratio_of_median_wall": ratio(theirs, ours, 0),
        "ratio_of_median_cpu": ratio(theirs, ours, 1),
        "same_observed_cells": bool((np.isfinite(values) == np.isfinite(peer)).all()),
        "largest_relative_difference": float(np.nanmax(np.abs(values - peer) / np.maximum(np.abs(peer), 1e-6))),
        "embedded_parquet_to_cohort_8000_stays": spread(embedded, 8000),
        "prepare_8000_stays": spread(prepared, 8000),
    }


def embedded_cohort(mapping: SourceMapping) -> Cohort:
    """The shipped stays, from parquet."""
    tables = read_source("embedded")
    split = np.zeros(tables.stays.height, dtype=np.int8)
    return build_cohort(tables, mapping, step_hours=1.0, n_steps=N_STEPS, split=split)[0]


def ratio(slow: list[Timing], fast: list[Timing], column: int) -> float:
    """Of the medians of wall (0) or CPU (1) time."""
    above, below = (statistics.median(item[column] for item in times) for times in (slow, fast))
    return round(above / below, 2)


def machine() -> dict[str, object]:
    return {
        "cpu_count": os.cpu_count(),
        "load_average_at_start": [round(item, 2) for item in os.getloadavg()],
        "platform": platform.platform(),
        "python": platform.python_version(),
        "polars": pl.__version__,
        "pandas": pd.__version__,
        "numpy": np.__version__,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stays", type=int, default=8000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/ingest.json"))
    options = parser.parse_args()
    result = {"machine": machine(), **measure(options.stays, options.repeats)}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
