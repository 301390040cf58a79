"""The audit of anybody's tables: what would make it lie is refused by name and count, and a copied row is found."""

from __future__ import annotations

import datetime
import io
import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from pipeline.audit.bytes.scan import ByteScan
from pipeline.audit.run import audit
from pipeline.audit.scene import BytesScene, CondensedScene
from pipeline.audit.sets.near_copies import NearCopies
from pipeline.audit.tables.columns import MAX_CATEGORIES
from pipeline.audit.tables.scene import MIN_PEOPLE, Tables, read_table, tabular_scene
from pipeline.core.errors import DataError
from pipeline.core.types import AttackResult


def people(n: int, first: int, seed: int) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    general = rng.normal(size=n)
    numbers = {f"x{i}": 10 * i + general + (1 + i) * rng.normal(size=n) for i in range(8)}
    words = {"sex": rng.choice(["F", "M"], n), "unit": rng.choice(["surgery", "medicine", "heart"], n)}
    return pl.DataFrame({"pid": [f"P{first + row:07d}" for row in range(n)], **numbers, **words})


REAL, HOLDOUT = people(300, 1_000_000, 1), people(300, 2_000_000, 2)
FRESH = people(120, 3_000_000, 3).drop("pid")


def scene(shared: pl.DataFrame = FRESH, real: pl.DataFrame = REAL, holdout: pl.DataFrame = HOLDOUT) -> CondensedScene:
    found = tabular_scene(Tables(real, shared, holdout, "pid")).scenes[0]
    assert isinstance(found, CondensedScene)
    return found


def copies(shared: pl.DataFrame) -> AttackResult:
    (report,) = audit([scene(shared)], seed=0, attacks=(NearCopies(),))
    return next(row for row in report.results if row.statistic == "count")


def test_columns_become_channels_in_units_of_the_holdout() -> None:
    found = scene()
    assert found.condensed.channels[:8] == tuple(f"x{i}" for i in range(8))
    assert found.members.shape == (300, 1, 8 + 1 + 3)  # two sexes are one column, three units are three
    np.testing.assert_allclose(found.holdout[:, 0, :8].std(axis=0), 1, atol=0.01)
    assert set(np.unique(found.members[:, 0, 8:])) == {0.0, 1.0}


def test_one_copied_row_is_found_among_fresh_ones() -> None:
    assert copies(FRESH).rate == 0
    with_one = pl.concat([FRESH[1:], REAL[17:18].drop("pid")])
    found = copies(with_one)
    assert found.rate == 1
    assert found.controls_held is True


def test_gaps_are_channels_of_their_own() -> None:
    some = pl.when(pl.int_range(pl.len()) % 3 == 0).then(None).otherwise(pl.col("x2")).alias("x2")
    found = scene(real=REAL.with_columns(some))
    place = found.condensed.channels.index("x2 missing")
    assert found.members[:, 0, place].sum() == 100
    assert np.isfinite(found.members).all()


def test_long_tables_are_summarised_by_person() -> None:
    def long(frame: pl.DataFrame) -> pl.DataFrame:
        return pl.concat([frame.with_columns(hour=pl.lit(hour), x1=pl.col("x1") + hour) for hour in (2, 0, 1)])

    shared = long(people(60, 3_000_000, 3))
    found = tabular_scene(Tables(long(REAL), shared, long(HOLDOUT), "pid", "hour"))
    assert found.people == {"real": 300, "shared": 60, "holdout": 300}
    (first,) = found.scenes
    assert isinstance(first, CondensedScene)
    assert {"x1:mean", "x1:min", "x1:max", "x1:last"} <= set(first.condensed.channels)
    assert "x1:count" not in first.condensed.channels  # never varies here
    last, largest = (first.members[:, 0, first.condensed.channels.index(f"x1:{how}")] for how in ("last", "max"))
    np.testing.assert_allclose(last, largest, atol=1e-5)  # hour 2 comes last whatever the order of the rows


def test_identifiers_in_the_file_are_found() -> None:
    def scanned(shared: pl.DataFrame) -> float:
        stream = io.BytesIO()
        shared.write_parquet(stream)
        found = tabular_scene(Tables(REAL, shared, HOLDOUT, "pid"), shared_bytes=stream.getvalue())
        assert isinstance(found.scenes[1], BytesScene)
        (report,) = audit(found.scenes[1:], seed=0, attacks=(ByteScan(),))
        return max(row.rate for row in report.results)

    assert scanned(FRESH) == 0
    assert scanned(FRESH.with_columns(pid=REAL["pid"][:120])) > 0
    noted = FRESH.with_columns(unit=pl.Series(["surgery"] * 119 + ["heart"]))
    assert scanned(noted) == 0


@pytest.mark.parametrize(
    ("tables", "sentence"),
    [
        (
            Tables(REAL.drop("x3"), FRESH, HOLDOUT, "pid"),
            "1 columns of the shared table are missing from the real",
        ),
        (Tables(REAL, FRESH, HOLDOUT.drop("x3", "x4"), "pid"), "2 columns .* missing from the holdout table, .* is x3"),
        (Tables(REAL.drop("pid"), FRESH, HOLDOUT, "pid"), "the real table has no column pid"),
        (Tables(REAL[:99], FRESH, HOLDOUT, "pid"), f"the real table has 99 people, and at least {MIN_PEOPLE}"),
        (Tables(REAL, FRESH, HOLDOUT[:20], "pid"), "the holdout table has 20 people"),
        (Tables(REAL, FRESH[:0], HOLDOUT, "pid"), "the shared table has no row"),
        (
            Tables(REAL, FRESH, pl.concat([HOLDOUT, REAL[:7]]), "pid"),
            "7 people are in the real table and in",
        ),
        (
            Tables(REAL.drop("pid"), FRESH, pl.concat([HOLDOUT, REAL[:30]]).drop("pid")),
            "30 of 330 rows of the holdout are in the real table",
        ),
        (
            Tables(REAL, FRESH.with_columns(unit=pl.lit("dialysis-Smith")), HOLDOUT, "pid"),
            "column unit has 1 categories in 120 shared rows",
        ),
        (Tables(REAL, FRESH.with_columns(x1=pl.lit("a")), HOLDOUT, "pid"), "column x1 holds numbers in one table"),
        (Tables(REAL, FRESH.with_columns(x1=pl.lit([1])), HOLDOUT, "pid"), "column x1 holds neither numbers"),
        (Tables(REAL, FRESH.select([]), HOLDOUT, "pid"), "no column to audit"),
        (
            Tables(REAL.with_columns(x1=None), FRESH.with_columns(x1=None), HOLDOUT.with_columns(x1=None), "pid"),
            "column x1 has no value in the holdout",
        ),
    ],
)
def test_what_would_make_it_lie_is_refused(tables: Tables, sentence: str) -> None:
    with pytest.raises(DataError, match=sentence) as caught:
        tabular_scene(tables)
    assert not re.search(r"P\d{7}|Smith", str(caught.value))


def test_a_column_of_names_is_no_category() -> None:
    def named(frame: pl.DataFrame) -> pl.DataFrame:
        return frame.with_columns(note=pl.Series([f"n{row % 60}" for row in range(frame.height)]))

    with pytest.raises(DataError, match=f"column note has 60 categories, more than {MAX_CATEGORIES}"):
        tabular_scene(Tables(named(REAL), named(FRESH), named(HOLDOUT), "pid"))


def test_times_are_days() -> None:
    day = datetime.date(2026, 1, 1)

    def dated(frame: pl.DataFrame) -> pl.DataFrame:
        return frame.with_columns(at=pl.Series([day + datetime.timedelta(days=row % 9) for row in range(frame.height)]))

    found = scene(dated(FRESH), dated(REAL), dated(HOLDOUT))
    assert "at" in found.condensed.channels


def test_rows_that_many_people_share_are_no_overlap() -> None:
    """Two binary columns: nearly every row of the holdout stands in the real table, and nobody is in both."""
    coarse = [frame.select("sex", "unit") for frame in (REAL, FRESH, HOLDOUT)]
    assert tabular_scene(Tables(*coarse)).people["holdout"] == 300


def test_files_that_are_none_are_named_by_their_role(tmp_path: Path) -> None:
    (tmp_path / "r.parquet").write_bytes(b"P0000001,secret")
    with pytest.raises(DataError, match=r"the real table r\.parquet cannot be read as parquet"):
        read_table(tmp_path / "r.parquet", "real")
    with pytest.raises(DataError, match=r"the holdout table h\.csv is not a file"):
        read_table(tmp_path / "h.csv", "holdout")
    FRESH.write_csv(tmp_path / "f.csv")
    assert read_table(tmp_path / "f.csv", "shared").columns == FRESH.columns
