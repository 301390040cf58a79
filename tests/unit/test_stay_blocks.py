"""Blocks of stays: the same cohort, report and digest whatever the blocks, in memory or spilled."""

from __future__ import annotations

import dataclasses
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from pipeline.core.codec import record_digest
from pipeline.core.files import mapped
from pipeline.core.types import Split
from pipeline.ingest.cohort import stay_blocks
from pipeline.ingest.cohort.build import build_cohort
from pipeline.ingest.cohort.doubts.slips import Values
from pipeline.ingest.cohort.stay_blocks import added_up
from pipeline.ingest.kept import spilled
from pipeline.ingest.kept.spilled import SpilledRows
from pipeline.ingest.mapping.load import load_mapping
from pipeline.ingest.source_tables import SourceTables
from pipeline.ingest.sources.embedded import read_embedded
from pipeline.ingest.sources.meds import write_meds
from pipeline.ingest.sources.readers import read_source
from pipeline.ingest.splits import given_split
from pipeline.ingest.withdrawn import Withdrawn, drop_withdrawn
from pipeline.validation.contracts import check_event_blocks, check_events

STAYS = 250


@pytest.fixture(scope="module")
def source() -> SourceTables:
    tables = read_embedded(sets=("a",), max_stays=STAYS)
    # out of the stays' order, as a hospital's tables are, with a slip of unit and an implausible static
    order = np.random.default_rng(3).permutation(tables.events.height)
    events = tables.events[order].with_columns(
        pl.when(pl.col("variable") == "Temp").then(pl.col("value") * 1.8 + 32).otherwise("value").alias("value")
    )
    return dataclasses.replace(tables, events=events)


def spilled_source(tables: SourceTables, folder: Path, size: int) -> SourceTables:
    """The same events as a reader of large tables hands them on."""
    names = sorted(tables.events["variable"].unique().to_list())
    row = tables.events["stay_id"].cast(pl.Enum(tables.stays["stay_id"])).to_physical()
    frame = tables.events.drop("stay_id").with_columns(row=row, variable=pl.col("variable").cast(pl.Enum(names)))
    rows = SpilledRows(tables.stays.height, names, folder, size)
    parts = np.array_split(np.arange(frame.height), 7)
    for number in (3, 0, 6, 1, 5, 2, 4):  # files are done in no order
        rows.add(number, frame[parts[number]])
    none = tables.events.clear().with_columns(pl.col("stay_id").cast(pl.Enum(tables.stays["stay_id"])))
    return dataclasses.replace(tables, events=none, spilled=rows)


def built(tables: SourceTables, scratch: Path | None = None) -> tuple[str, str]:
    split = np.arange(STAYS) % 3
    mapping = load_mapping("physionet2012")
    cohort, report = build_cohort(
        tables, mapping, step_hours=1.0, n_steps=48, split=split.astype(np.int8), scratch=scratch
    )
    assert set(cohort.split) == {int(part) for part in Split}
    return record_digest(cohort), record_digest(report)


@pytest.fixture(scope="module")
def whole(source: SourceTables) -> tuple[str, str]:
    return built(source)


@pytest.mark.parametrize("size", [1, 64, STAYS - 1])
def test_blocks_in_memory_make_the_same_cohort_and_report(
    source: SourceTables, whole: tuple[str, str], size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stay_blocks, "BLOCK_STAYS", size)
    assert built(source) == whole


@pytest.mark.parametrize("large", [1, 1 << 40])
def test_spilled_rows_make_the_same_cohort_and_report(
    source: SourceTables, whole: tuple[str, str], large: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mapped, "LARGE_BYTES", large)
    monkeypatch.setattr(spilled, "LARGE_BYTES", large)
    tables = spilled_source(source, tmp_path, 64)
    assert tables.n_events == source.n_events
    assert repr(tables) == repr(source)
    assert built(tables, tmp_path) == whole
    assert tables.spilled is not None
    tables.spilled.close()
    assert not list(tmp_path.iterdir())  # what lay there had no name


def test_a_block_gives_rows_back_in_the_order_of_their_files(source: SourceTables, tmp_path: Path) -> None:
    rows = spilled_source(source, tmp_path, 100).spilled
    assert rows is not None
    found = pl.concat([rows.block(number) for number in range(3)])
    row = source.events["stay_id"].cast(pl.Enum(source.stays["stay_id"])).to_physical().to_numpy()
    expected = source.events[np.argsort(row // 100, kind="stable")]
    assert found["value"].equals(expected["value"])
    assert found["variable"].cast(pl.String).equals(expected["variable"])
    rows.close()


@pytest.mark.parametrize("in_order", [True, False])
def test_rows_of_few_of_many_blocks_are_found_and_cost_nothing_for_the_others(tmp_path: Path, in_order: bool) -> None:
    stays = [70_001, 70_001, 70_009, 70_012] if in_order else [70_012, 70_001, 70_009, 70_001]
    frame = pl.DataFrame(
        {"row": stays, "hours": [0.0, 1.0, 2.0, 3.0], "variable": ["b", "a", "b", "a"], "value": [1.0, 2.0, 3.0, 4.0]},
        schema={"row": pl.UInt32, "hours": pl.Float64, "variable": pl.Enum(["a", "b"]), "value": pl.Float64},
    )
    rows = SpilledRows(100_000, ["a", "b"], tmp_path, 10)
    tracemalloc.start()
    try:
        for order in range(30):
            rows.add(order, frame)
        held = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert held < 30 * 4_000  # an edge for each of 10,000 blocks is 80,000 bytes
    found = {number: rows.block(number) for number in (0, 6_999, 7_000, 7_001, 7_002, 9_999)}
    assert {number: block.height for number, block in found.items() if block.height} == {7_000: 90, 7_001: 30}
    assert found[7_001].head(1).equals(frame.filter(pl.col("row") == 70_012))
    assert found[7_000].head(3).equals(frame.filter(pl.col("row") < 70_010))
    rows.close()


def test_changed_rows_replace_the_old_ones(source: SourceTables, tmp_path: Path) -> None:
    rows = spilled_source(source, tmp_path, 100).spilled
    assert rows is not None
    large = int((source.events["value"] > 50).sum())
    made = rows.changed(lambda frame: frame.filter(pl.col("value") > 50), STAYS)
    assert made.height == large == sum(made.block(number).height for number in range(3))
    assert all((made.block(number)["row"].to_numpy() // 100 == number).all() for number in range(3))
    with pytest.raises(ValueError, match="closed"):
        rows.add(0, made.block(0))
    made.close()


@pytest.mark.parametrize("size", [64, STAYS])
def test_who_has_withdrawn_is_in_no_spilled_row(source: SourceTables, tmp_path: Path, size: int) -> None:
    ids = source.stays["subject_id"].to_list()
    nobody = Withdrawn(b"k" * 32)
    withdrawn = Withdrawn(nobody.key, frozenset(nobody.mark(name) for name in ids[5:200:3]))
    expected = drop_withdrawn(source, withdrawn)
    found = drop_withdrawn(spilled_source(source, tmp_path, size), withdrawn)
    assert found.spilled is not None
    assert (found.n_events, found.rows_dropped) == (expected.n_events, expected.rows_dropped)
    blocks = [part.events.with_columns(pl.col("stay_id", "variable").cast(pl.String)) for _, part in _blocks(found)]
    columns = ["stay_id", "hours", "variable", "value"]
    assert pl.concat(blocks).sort(columns).equals(expected.events.sort(columns))
    found.spilled.close()


def _blocks(tables: SourceTables) -> Any:
    return stay_blocks.stay_blocks(tables)


def test_the_middle_of_counted_values_is_the_median() -> None:
    draws = np.random.default_rng(0)
    for n in (1, 2, 3, 10, 101):
        parts = [np.round(draws.normal(size=n), 1) for _ in range(3)]
        counted = sum((Values(*np.unique(part, return_counts=True)) for part in parts[1:]), start=_first(parts[0]))
        assert len(counted) == 3 * n
        assert counted.middle() == np.median(np.concatenate(parts))


def _first(part: np.ndarray) -> Any:
    return Values(*np.unique(part, return_counts=True))


def test_notes_of_blocks_are_told_once_with_the_sum() -> None:
    assert added_up(["3 rows are odd", "2 rows are odd", "odd", "1 stays", "odd"]) == (
        "5 rows are odd",
        "odd",
        "1 stays",
    )


def test_a_layout_is_read_into_the_same_cohort_through_the_disk(
    source: SourceTables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cohort, _ = build_cohort(
        source,
        load_mapping("physionet2012"),
        step_hours=1.0,
        n_steps=48,
        tasks=("in_hospital_death",),
        split=(np.arange(STAYS) % 3).astype(np.int8),
    )
    write_meds(cohort, tmp_path / "meds", subjects_per_shard=40)
    mapping = load_mapping(str(tmp_path / "meds" / "metadata" / "decoct_mapping.toml"))
    scratch = tmp_path / "scratch"
    scratch.mkdir()

    def read() -> SourceTables:
        return read_source("tables", folder=tmp_path / "meds", mapping=mapping, scratch=scratch)

    def digests(tables: SourceTables) -> tuple[str, str]:
        made, report = build_cohort(
            tables, mapping, step_hours=1.0, n_steps=48, split=given_split(tables), scratch=scratch
        )
        return record_digest(made), record_digest(report)

    in_memory = read()
    assert in_memory.spilled is None
    expected = digests(in_memory)
    monkeypatch.setattr(spilled, "BLOCK_STAYS", 33)
    monkeypatch.setattr(spilled, "LARGE_BYTES", 1)
    on_disk = read()
    assert on_disk.spilled is not None
    assert on_disk.events.height == 0
    assert digests(on_disk) == expected
    events = (part.events for _, part in stay_blocks.stay_blocks(on_disk))
    by_block = check_event_blocks(events, mapping.variables)
    assert by_block == check_events(in_memory.events, mapping.variables)
    on_disk.spilled.close()
    assert not list(scratch.iterdir())
