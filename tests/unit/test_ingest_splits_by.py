"""Splits by site and by time: always by subject, and what cannot be split is refused."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl
import pytest

from pipeline.core.errors import DataError
from pipeline.ingest.source_tables import EVENT_SCHEMA, SourceTables
from pipeline.ingest.splits import START, site_split, time_split


def tables(subjects: Sequence[str], sites: Sequence[str | None], starts: Sequence[int | None]) -> SourceTables:
    ids = [str(number) for number in range(len(subjects))]
    stays = pl.DataFrame({"stay_id": ids, "subject_id": subjects, "site": sites, START: starts})
    return SourceTables(
        events=pl.DataFrame(schema=EVENT_SCHEMA),
        stays=stays,
        rows_read=0,
        rows_dropped={},
        dropped_by_variable={},
        subjects_known=True,
        source="test",
    )


def test_by_site_a_subject_goes_where_fewer_models_look() -> None:
    source = tables(["a", "b", "b", "c", "c", "d"], ["x", "x", "y", "y", "z", "z"], [0] * 6)
    assert site_split(source, ["y"], ["z"]).tolist() == [0, 1, 1, 2, 2, 2]


def test_by_site_needs_sites() -> None:
    with pytest.raises(DataError, match="1 stays have no site"):
        site_split(tables(["a", "b"], ["x", None], [0, 0]), [], ["x"])
    with pytest.raises(DataError, match="1 of the 2 sites"):
        site_split(tables(["a", "b"], ["x", "y"], [0, 0]), ["x"], ["q"])
    source = tables(["a"], ["x"], [0])
    bare = SourceTables(**{**vars(source), "stays": source.stays.drop("site")})
    with pytest.raises(DataError, match="names no column of sites"):
        site_split(bare, [], ["x"])


def test_by_time_no_training_stay_began_after_a_held_out_subjects_latest() -> None:
    subjects = [str(number) for number in range(10)] + ["0"]  # subject 0 comes back last of all
    starts = [*range(10), 99]
    part = time_split(tables(subjects, ["x"] * 11, starts), tuning=0.2, held_out=0.2).tolist()
    assert part == [2, 0, 0, 0, 0, 0, 0, 1, 1, 2, 2]


def test_by_time_equal_starts_stay_together() -> None:
    part = time_split(tables(list("abcd"), ["x"] * 4, [1, 5, 5, 5]), tuning=0.25, held_out=0.25).tolist()
    assert part == [0, 2, 2, 2]


def test_by_time_needs_starts() -> None:
    with pytest.raises(DataError, match="does not say when stays began"):
        time_split(tables(["a", "b"], ["x", "x"], [1, None]), 0.2, 0.2)
