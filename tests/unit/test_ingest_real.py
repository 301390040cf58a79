"""The 8,000 embedded stays: counts as published, every row accounted for, and text equal to parquet."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from pipeline.core.types import Cohort, IngestReport
from pipeline.ingest.cohort.build import build_cohort
from pipeline.ingest.cohort.scaling import prepare
from pipeline.ingest.mapping.load import load_mapping
from pipeline.ingest.sources.embedded import DATA
from pipeline.ingest.sources.readers import read_source

NO_SERIES = {
    "a": ("140501", "140936", "141264"),
    "b": ("142731", "142998", "143656", "145611", "147514", "150309", "150649"),
}


def ingest(**options: object) -> tuple[Cohort, IngestReport]:
    tables = read_source("embedded", **options)
    split = np.zeros(tables.stays.height, dtype=np.int8)
    return build_cohort(tables, load_mapping("physionet2012"), step_hours=1.0, n_steps=48, split=split)


@pytest.fixture(scope="module")
def both() -> tuple[Cohort, IngestReport]:
    """A and B."""
    return ingest()


def test_counts_are_those_of_the_data_page(both: tuple[Cohort, IngestReport]) -> None:
    cohort, report = both
    assert cohort.values.shape == (8000, 48, 37)
    ids = cohort.stay_ids.astype(int)
    assert (np.diff(ids[:4000]) > 0).all()
    assert (np.diff(ids[4000:]) > 0).all()
    died = cohort.labels[:, 0]
    assert (died[:4000].sum(), died[4000:].sum()) == (554, 568)
    missing = {task: report.labels_missing[task] for task in ("los_gt_7d", "sofa_ge_10", "saps1_ge_18", "death_30d")}
    assert missing == {"los_gt_7d": 60 + 54, "sofa_ge_10": 144 + 137, "saps1_ge_18": 190 + 162, "death_30d": 0}
    assert report.stays_without_series == 10
    weight = [variable.name for variable in cohort.variables].index("Weight")
    without = cohort.observed[:, :, np.arange(37) != weight].sum(axis=(1, 2)) == 0
    assert set(cohort.stay_ids[without]) == {*NO_SERIES["a"], *NO_SERIES["b"]}
    assert not cohort.subjects_known


def test_every_row_is_accounted_for(both: tuple[Cohort, IngestReport]) -> None:
    report = both[1]
    rows = sum(pl.read_parquet(DATA / f"set-{name}.parquet").height for name in "ab")
    assert report.rows_read == rows == report.rows_used + sum(report.rows_dropped.values())
    by_variable = sum(sum(reasons.values()) for reasons in report.dropped_by_variable.values())
    assert by_variable == sum(report.rows_dropped.values())


def test_values_against_a_plain_group_by(both: tuple[Cohort, IngestReport]) -> None:
    """Set A's heart rate and urine, by polars alone: same cells, same numbers to single precision."""
    cohort = both[0]
    names = [variable.name for variable in cohort.variables]
    place = {int(stay): row for row, stay in enumerate(cohort.stay_ids)}
    raw = pl.read_parquet(DATA / "set-a.parquet").with_columns(
        pl.col("variable").cast(pl.String), step=pl.min_horizontal(pl.col("minutes") // 60, 47)
    )
    for name, total in (("HR", pl.col("value").mean()), ("Urine", pl.col("value").sum())):
        limits = cohort.variables[names.index(name)]
        kept = raw.filter(
            (pl.col("variable") == name) & pl.col("value").is_between(limits.plausible_low, limits.plausible_high)
        )
        cells = kept.with_columns(pl.col("value").cast(pl.Float64)).group_by("stay_id", "step").agg(total)
        rows = [place[stay] for stay in cells["stay_id"]]
        found = cohort.values[rows, cells["step"].to_numpy(), names.index(name)]
        np.testing.assert_allclose(found, cells["value"].to_numpy(), rtol=1e-6)
        assert cells.height == cohort.observed[:4000, :, names.index(name)].sum()


def test_same_input_same_bytes(both: tuple[Cohort, IngestReport]) -> None:
    again, report = ingest(sets=("a",))
    np.testing.assert_array_equal(again.values, both[0].values[:4000])
    np.testing.assert_array_equal(again.static, both[0].static[:4000])
    assert report.stays == 4000


def test_text_archive_equals_embedded_parquet(tmp_path: Path) -> None:
    """Fifty stays written as upstream's text files, in a tar.gz, in reverse order."""
    raw = pl.read_parquet(DATA / "set-a.parquet").with_columns(pl.col("variable").cast(pl.String))
    ids = raw["stay_id"].unique(maintain_order=True).head(50)
    records = tmp_path / "set-a.tar.gz"
    with tarfile.open(records, "w:gz") as tar:
        for stay in reversed(ids.to_list()):
            rows = raw.filter(pl.col("stay_id") == stay)
            lines = [f"{m // 60:02d}:{m % 60:02d},{v},{np.float32(x)!s}" for _, m, v, x in rows.iter_rows()]
            text = "\n".join(["Time,Parameter,Value", f"00:00,RecordID,{stay}", *lines, ""]).encode()
            info = tarfile.TarInfo(f"set-a/{stay}.txt")
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text))
    outcomes = tmp_path / "Outcomes-a.txt"
    outcomes.write_text("".join((DATA / "Outcomes-a.txt").read_text().splitlines(keepends=True)[:51]))
    tables = read_source("physionet2012", records=(records,), outcomes=(outcomes,))
    split = np.zeros(50, dtype=np.int8)
    from_text, report = build_cohort(tables, load_mapping("physionet2012"), step_hours=1.0, n_steps=48, split=split)
    embedded, embedded_report = ingest(max_stays=50)
    for name in ("values", "observed", "static", "labels", "stay_ids"):
        np.testing.assert_array_equal(getattr(from_text, name), getattr(embedded, name))
    assert report.rows_used == embedded_report.rows_used
    assert dict(report.rows_dropped) == {**embedded_report.rows_dropped, "record id": 50}


def test_second_day_tasks() -> None:
    tables = read_source("embedded", max_stays=400)
    cohort, report = build_cohort(
        tables,
        load_mapping("physionet2012_24h"),
        step_hours=1.0,
        n_steps=24,
        split=np.zeros(400, dtype=np.int8),
    )
    assert cohort.labels.shape == (400, 9)
    assert 0 < report.prevalence["ventilated"] < 1
    assert report.labels_missing["lactate_ge_2"] > 200
    platelets = [task.name for task in cohort.tasks].index("platelets_lt_100")
    low = (
        tables.events.filter((pl.col("variable") == "Platelets") & pl.col("hours").is_between(24, 48, closed="right"))
        .group_by("stay_id")
        .agg(pl.col("value").min())
    )
    expected = dict(low.with_columns(pl.col("value") < 100).iter_rows())
    for stay, label in zip(cohort.stay_ids, cohort.labels[:, platelets], strict=True):
        assert (np.isnan(label) and str(stay) not in expected) or label == expected[str(stay)]


def test_prepared_stays_carry_the_outcome(both: tuple[Cohort, IngestReport]) -> None:
    """The Glasgow coma score and the urea of the last hour alone must rank deaths (textbook knowledge): AUROC > .7."""
    prepared = prepare(both[0])
    assert prepared.features.shape == (8000, 48, 44)
    assert prepared.features.min() >= 0
    assert prepared.features.max() <= 1
    score = (
        prepared.features[:, -1, prepared.channels.index("BUN")]
        - prepared.features[:, -1, prepared.channels.index("GCS")]
    )
    ranks = np.argsort(np.argsort(score)) + 1
    died = prepared.labels[:, 0] == 1
    auroc = (ranks[died].sum() - died.sum() * (died.sum() + 1) / 2) / (died.sum() * (~died).sum())
    assert auroc > 0.7
