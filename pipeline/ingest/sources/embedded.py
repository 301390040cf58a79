"""The 8,000 PhysioNet 2012 stays that ship with Decoct (`data/physionet2012`, ODC-BY 1.0)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import polars as pl

from pipeline.core.errors import ConfigError
from pipeline.core.protocols import OnStep, ignore_step
from pipeline.ingest.source_tables import SourceTables
from pipeline.ingest.sources.files import read_table
from pipeline.ingest.sources.physionet2012 import match_outcomes, read_outcomes, tidy

DATA: Final = Path(__file__).parents[1] / "data" / "physionet2012"
SETS: Final = ("a", "b")
_MINUTES_PER_HOUR: Final = 60.0


def read_embedded(
    *, sets: Sequence[str] = SETS, max_stays: int | None = None, on_step: OnStep = ignore_step
) -> SourceTables:
    """The stays of the sets in the order given, by RecordID within each; `max_stays` = the first so many.

    Raises:
        ConfigError: a set that does not exist, or the same set twice.
        DataError: the package's data files are damaged.
    """
    if not sets or any(name not in SETS for name in sets) or len(set(sets)) != len(sets):
        raise ConfigError(f"the embedded sets are {' and '.join(SETS)}, each at most once")
    started, parts = time.monotonic(), []
    for done, name in enumerate(sets, start=1):
        parts.append(_read_set(name))
        on_step(done, len(sets), done / max(time.monotonic() - started, 1e-9))
    events = pl.concat(parts)
    ids = events["stay_id"].unique(maintain_order=True)
    outcomes = read_outcomes([DATA / f"Outcomes-{name}.txt" for name in sets])
    if max_stays is not None:
        ids = ids.head(max_stays)
        events = events.filter(pl.col("stay_id").is_in(ids.implode()))
        outcomes = outcomes.filter(pl.col("stay_id").is_in(ids.implode()))
    source = f"PhysioNet 2012, set{'s' * (len(sets) > 1)} {' and '.join(name.upper() for name in sets)}"
    return tidy(events, match_outcomes(ids.to_list(), outcomes, source), source)


def _read_set(name: str) -> pl.DataFrame:
    table = read_table(DATA / f"set-{name}.parquet", ("stay_id", "minutes", "variable", "value"))
    return table.select(
        pl.col("stay_id").cast(pl.String),
        (pl.col("minutes") / _MINUTES_PER_HOUR).cast(pl.Float64).alias("hours"),
        pl.col("variable").cast(pl.String),
        pl.col("value").cast(pl.Float64),
    )
