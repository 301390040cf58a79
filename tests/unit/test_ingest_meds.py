"""Cohort -> MEDS -> Cohort is the identity, and what is written validates under the standard's own schemas."""

from __future__ import annotations

import datetime
import json
from pathlib import Path

import meds
import numpy as np
import polars as pl
import pyarrow.parquet as arrow_parquet
import pytest

from pipeline.core.errors import DataError
from pipeline.core.types import Cohort, Provenance, Split, StaticVariable, Task, Variable
from pipeline.ingest.cohort.build import build_cohort
from pipeline.ingest.mapping.load import load_mapping, parse_mapping
from pipeline.ingest.sources.embedded import read_embedded
from pipeline.ingest.sources.meds import write_meds
from pipeline.ingest.sources.readers import read_source
from pipeline.ingest.splits import given_split


def read_back(folder: Path) -> Cohort:
    """By the ordinary reader, with the mapping and the grid that lie in the folder."""
    grid = json.loads((folder / "metadata" / "decoct.json").read_text(encoding="utf-8"))
    mapping = load_mapping(str(folder / "metadata" / "decoct_mapping.toml"))
    tables = read_source("tables", folder=folder, mapping=mapping)
    names = tuple(rule.name for rule in mapping.tasks)
    return build_cohort(tables, mapping, **grid, tasks=names, split=given_split(tables))[0]


def assert_same(one: Cohort, other: Cohort) -> None:
    for name in ("values", "static", "labels"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
        assert getattr(one, name).dtype == getattr(other, name).dtype
    for name in ("observed", "split"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert one.stay_ids.tolist() == other.stay_ids.tolist()
    assert one.subject_ids.tolist() == other.subject_ids.tolist()
    assert (one.sites is None) == (other.sites is None)
    assert one.sites is None or other.sites is None or one.sites.tolist() == other.sites.tolist()
    assert one.variables == other.variables
    assert one.static_variables == other.static_variables
    assert one.tasks == other.tasks
    assert (one.step_hours, one.subjects_known) == (other.step_hours, other.subjects_known)


def validate(folder: Path) -> int:
    """Every file under the schema of the `meds` package; the number of events."""
    events, shards_of = 0, dict[int, Path]()
    for path in sorted((folder / meds.data_subdirectory).rglob("*.parquet")):
        table = arrow_parquet.ParquetFile(path).read()
        meds.DataSchema.validate(table)
        frame = pl.DataFrame(pl.from_arrow(table))
        assert frame["time"].null_count() == 0
        assert frame.sort("subject_id", "time", maintain_order=True).equals(frame)  # contiguous, in time
        for subject in frame["subject_id"].unique().to_list():
            assert shards_of.setdefault(subject, path) == path  # one subject, one shard
        events += frame.height
    for path in (folder / "labels").rglob("*.parquet"):
        meds.LabelSchema.validate(arrow_parquet.ParquetFile(path).read())
    meds.SubjectSplitSchema.validate(arrow_parquet.ParquetFile(folder / meds.subject_splits_filepath).read())
    codes = arrow_parquet.ParquetFile(folder / meds.code_metadata_filepath).read()
    meds.CodeMetadataSchema.validate(codes)
    meds.DatasetMetadataSchema.validate(json.loads((folder / meds.dataset_metadata_filepath).read_text()))
    known = set(codes["code"].to_pylist())
    used = {code for path in (folder / "data").rglob("*.parquet") for code in pl.read_parquet(path)["code"].unique()}
    assert used <= known
    return events


def random_cohort(seed: int, stays: int = 40, *, known: bool = True) -> Cohort:
    """Several stays per subject, missing labels and statics, sums beyond the range of one measurement."""
    rng = np.random.default_rng(seed)
    variables = (
        Variable("HR", "/min", 10, 320, 30, 180, 80),
        Variable('odd "name" // é', "u", -5.0, 5.0, -1, 1, 0, "last"),
        Variable("Urine", "mL/h", 0, 100, 0, 50, 10, "sum"),
    )
    observed = rng.random((stays, 5, 3)) < 0.4
    observed[0] = False  # a stay without any series
    values = np.stack(
        [rng.uniform(10, 320, (stays, 5)), rng.uniform(-5, 5, (stays, 5)), rng.uniform(0, 350, (stays, 5))], axis=2
    ).astype(np.float32)
    subjects = np.array([f"{'S-' if seed % 2 else ''}{number}" for number in rng.integers(1, stays // 2, stays)])
    ids = np.array([f"stay {number}" for number in rng.permutation(stays)])
    subjects = subjects if known else ids
    parts = {subject: int(rng.integers(0, 3)) for subject in np.unique(subjects).tolist()}
    labels = rng.integers(0, 2, (stays, 2)).astype(np.float32)
    labels[rng.random((stays, 2)) < 0.2] = np.nan
    static = np.stack([rng.uniform(18, 90, stays), rng.integers(1, 3, stays)], axis=1).astype(np.float32)
    static[rng.random((stays, 2)) < 0.2] = np.nan
    return Cohort(
        values=np.where(observed, values, np.float32(np.nan)),
        observed=observed,
        static=static,
        labels=labels,
        stay_ids=ids,
        subject_ids=subjects,
        split=np.array([parts[subject] for subject in subjects.tolist()], dtype=np.int8),
        variables=variables,
        static_variables=(
            StaticVariable("age", "years", 10, 120, 15, 95, 65),
            StaticVariable("unit", "code", 1, 2, 1, 2, 1, ((1, "A"), (2, "B"))),
        ),
        tasks=(Task("died", 'said "so"'), Task("long stay/2")),
        step_hours=2.5,
        provenance=Provenance("test"),
        subjects_known=known,
        sites=np.array([f"hospital {number}" for number in rng.integers(0, 3, stays)]) if known else None,
    )


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("seed", [1, 2])
def test_round_trip_is_the_identity(seed: int, known: bool, tmp_path: Path) -> None:
    cohort = random_cohort(seed, known=known)
    events = write_meds(cohort, tmp_path / "out", subjects_per_shard=4)
    assert validate(tmp_path / "out") == events
    assert_same(cohort, read_back(tmp_path / "out"))


def test_round_trip_of_embedded_stays(tmp_path: Path) -> None:
    tables = read_embedded(sets=("a",), max_stays=300)
    split = np.arange(300) % 3
    cohort, _ = build_cohort(tables, load_mapping("physionet2012"), step_hours=1.0, n_steps=48, split=split)
    if any(getattr(task, "kind", "binary") != "binary" for task in cohort.tasks):
        pytest.fail("only binary labels are taken by default")
    events = write_meds(cohort, tmp_path)
    assert validate(tmp_path) == events
    assert events >= int(cohort.observed.sum()) + 300
    assert_same(cohort, read_back(tmp_path))


def test_labels_are_rows_only_where_known(tmp_path: Path) -> None:
    cohort = random_cohort(3)
    write_meds(cohort, tmp_path)
    labels = pl.read_parquet(tmp_path / "labels" / "died" / "0.parquet")
    assert labels.height == int(np.isfinite(cohort.labels[:, 0]).sum())
    stays = pl.read_parquet(tmp_path / "metadata" / "stays.parquet")
    ends = stays["prediction_time"] - stays["start"]
    assert ends.unique().to_list() == [datetime.timedelta(hours=12.5)]


def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match="is not empty"):
        write_meds(random_cohort(1), tmp_path)


FOREIGN = {
    "variables": {
        "HR": {"unit": "/min", "plausible": [10, 320], "scale": [30, 180], "normal": 80, "sources": ["HR//bpm"]}
    },
    "label_variables": {"Death": {"unit": "-", "plausible": [0, 1], "scale": [0, 1], "normal": 0, "sources": ["DIED"]}},
    "unknown_variables": "drop",
    "tasks": {
        "dies": {"kind": "event", "variables": ["Death"], "op": ">=", "threshold": 1, "after_hours": 2, "to_hours": 48,
                 "unmeasured_is_zero": True},
    },
    "layout": {
        "stays": {
            "file": "data", "stay": "(row)", "subject": "subject_id", "start": "time", "split": "split",
            "where": {"code": ["ICU_ADMISSION*"]},
            "join": [{"file": "metadata/subject_splits", "on": ["subject_id"], "columns": {"split": "split"}}],
        },
        "events": [{"file": "data", "link": "subject", "key": "subject_id", "time": "time", "code": "code",
                    "value": "numeric_value"}],
    },
}  # fmt: skip


def foreign(folder: Path, planted: bool) -> Path:
    """A small MEDS dataset of somebody else: two shards, static rows without a time, stays begin with a code."""
    admit = datetime.datetime(2020, 1, 1, 8)

    def at(hours: float) -> datetime.datetime:
        return admit + datetime.timedelta(hours=hours)

    rows = [
        (1, None, "GENDER//F", None),
        (1, at(0), "ICU_ADMISSION//MICU", None),
        (1, at(0.5), "HR//bpm", 70.0),
        (1, at(1.5), "HR//bpm", 90.0),
        (1, at(100), "ICU_ADMISSION//SICU", None),
        (1, at(100.5), "HR//bpm", 60.0),
        (1, at(110), "DIED", 1.0),
        (2, at(-5), "HR//bpm", 200.0),
        (2, at(0), "ICU_ADMISSION//MICU", None),
        (2, at(0.25), "HR//bpm", 80.0),
    ]
    if planted:
        rows += [(1, at(2.01), "HR//bpm", 300.0), (2, at(40), "HR//bpm", 300.0)]
    schema = {"subject_id": pl.Int64, "time": pl.Datetime("us"), "code": pl.String, "numeric_value": pl.Float32}
    frame = pl.DataFrame(rows, schema=schema, orient="row").sort("subject_id", "time", maintain_order=True)
    for subject, part in ((1, "train"), (2, "held_out")):
        path = folder / "data" / part / "0.parquet"
        path.parent.mkdir(parents=True)
        frame.filter(pl.col("subject_id") == subject).write_parquet(path)
    (folder / "metadata").mkdir()
    pl.DataFrame({"subject_id": [1, 2], "split": ["train", "held_out"]}).write_parquet(
        folder / "metadata" / "subject_splits.parquet"
    )
    return folder


def test_meds_of_others_is_read_by_a_mapping(tmp_path: Path) -> None:
    mapping = parse_mapping(FOREIGN, "foreign", "foreign.toml", "0" * 64)
    found = []
    for planted in (False, True):
        folder = foreign(tmp_path / str(planted), planted)
        tables = read_source("tables", folder=folder, mapping=mapping, until_hours=48.0)
        assert tables.stays["split"].to_list() == ["train", "train", "held_out"]
        split = np.array([int(Split.TRAIN)] * 3)
        cohort, report = build_cohort(tables, mapping, step_hours=1.0, n_steps=2, split=split)
        assert cohort.stay_ids.tolist() == ["1/1", "1/2", "2/1"]
        assert cohort.subject_ids.tolist() == ["1", "1", "2"]
        assert cohort.values[:, :, 0].tolist()[0] == [70, 90]
        assert cohort.values[1, 0, 0] == 60
        assert cohort.labels[:, 0].tolist() == [0, 1, 0]
        assert report.rows_read == 10 + 2 * planted
        found.append((cohort.values.tobytes(), cohort.labels.tobytes(), report.rows_dropped["outside every stay"]))
    assert found[0] == found[1]  # what is planted after the prediction time changes nothing
